"""The label page as people use it."""

import re
import time

import requests


class Person:
    """A person with a browser, who reads the page and sends its forms."""

    def __init__(self, address, name):
        self.base = address.split('/?')[0]
        self.session = requests.Session()
        self.session.get(address)
        self.page = self.session.post(f'{self.base}/name', {'name': name}).text

    @property
    def question(self):
        """The number of the question on the page, None if there is none."""
        found = re.search(r'name="question" value="(\d+)"', self.page)
        return int(found.group(1)) if found else None

    def texts(self):
        return re.findall(r'<span class="text" dir="auto">(.*?)</span>', self.page, re.DOTALL)

    def post(self, action, **fields):
        """Send a form as the page would. Return the status of the page that follows."""
        response = self.session.post(f'{self.base}/{action}', fields)
        self.page = response.text
        return response.status_code

    def undo(self):
        """Press Undo on the page."""
        last = re.search(r'name="last" value="(\d+)"', self.page)
        return self.post('undo', **({'last': last.group(1)} if last else {}))

    def answer(self, place):
        return self.post('answer', question=self.question, answer=place)

    def reload(self):
        time.sleep(0.05)
        self.page = self.session.get(self.base).text
