// The label page with the keyboard alone: each button's key is in its data-key.
'use strict';
(() => {
  // A key pressed twice by mistake must not answer the next question unread.
  const deaf = 300;
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
    }, deaf);
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
