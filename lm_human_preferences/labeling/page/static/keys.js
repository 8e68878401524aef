// Lets people use the label page with the keyboard only. Each button names its key in data-key.
'use strict';
(() => {
  // After a page opens, ignore keys for a moment: a key pressed twice must not answer the next, unread question.
  const ignoreMilliseconds = 300;
  let done = true;
  const answered = (event) => {
    if (done) event.preventDefault();
    done = true;
  };
  document.querySelectorAll('form').forEach((form) => form.addEventListener('submit', answered));
  window.addEventListener('pageshow', () => {
    done = true;
    setTimeout(() => {
      done = false;
      document.documentElement.dataset.ready = 'yes';
    }, ignoreMilliseconds);
  });
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || done) return;
    const key = event.key.toLowerCase();
    if (key === 'i') {
      const instructions = document.querySelector('.instructions');
      if (instructions) instructions.open = !instructions.open;
      return;
    }
    const button = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (button) {
      button.classList.add('chosen');
      button.click();
    }
  });
})();
