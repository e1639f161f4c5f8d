"""Every question of the cookbook is answered by a real broker."""

from __future__ import annotations

from tests.serving import run
from tools.gen_cookbook import PAGE, QUESTIONS, a_history, answers


def test_each_question_has_an_answer():
    async def main():
        async with a_history() as client:
            for question, rows in zip(QUESTIONS, await answers(client), strict=True):
                assert rows, question.words

    run(main())


def test_the_page_has_each_question_with_its_sql():
    page = PAGE.read_text(encoding="utf-8")
    assert len(QUESTIONS) == 20
    for number, question in enumerate(QUESTIONS, start=1):
        assert f"## {number}. {question.words}\n\n```sql\n{question.sql}\n```" in page
