"""Synthetic question files in the formats of SQuAD and HotpotQA, for tests and benchmarks that run offline."""

from typing import Any

from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import read_words


def sentences(rng: Stream, n: int) -> str:
    """n sentences of common words."""
    words = read_words("fillers")
    return " ".join(" ".join(rng.pick(words) for _ in range(5 + rng.integer(8))).capitalize() + "." for _ in range(n))


def squad(n: int = 100) -> dict[str, Any]:
    """n paragraphs about villages (150 at most), two per document. The founder is named once, the river in two
    paragraphs; two of the five answers are of a kind that a guess can choose from: founder and year.
    """
    paragraphs: list[dict[str, Any]] = []
    nouns = read_words("nouns")
    for i in range(n):
        rng = Stream("squad", i)
        founder, year, river = f"{nouns[i]} Founder".title(), str(1400 + 7 * i), f"River {nouns[200 + i // 2]}"
        context = f"{sentences(rng, 2)} It was founded by {founder} in  {year}.\n"
        context += f"{sentences(rng, 1 + i % 4)} It lies at the {river}."
        questions = [
            ("Who founded village", founder),
            ("When was it founded, village", year),
            ("Since which year is there village", year),
            ("What was the founder's first name, village", founder.split()[0]),
            ("At which river is village", river),
        ]
        qas: list[dict[str, Any]] = [
            {"id": f"{i}-{k}", "question": f"{q} {i}?", "answers": [{"text": a, "answer_start": context.index(a)}]}
            for k, (q, a) in enumerate(questions)
        ]
        qas.append({"id": f"{i}-no", "question": "Who cannot be known?", "is_impossible": True, "answers": []})
        paragraphs.append({"context": context, "qas": qas})
    return {
        "version": "x",
        "data": [{"title": f"villages {i}", "paragraphs": paragraphs[i : i + 2]} for i in range(0, n, 2)],
    }


def hotpot(n: int = 40) -> list[dict[str, Any]]:
    """n books with their authors: "where was the author of B born" needs two of four paragraphs."""
    rows: list[dict[str, Any]] = []
    nouns = read_words("nouns")
    for i in range(n):
        rng = Stream("hotpot", i)
        book, author, town = (
            f"The {nouns[i]}".title(),
            f"{nouns[80 + i]} Writer".title(),
            f"{nouns[160 + i]} Town".title(),
        )
        context = [
            [book, [f"{book} is a book by {author}.", f" {sentences(rng, 2 + i % 5)}"]],
            [f"Lake {i}", [sentences(rng, 2)]],
            [author, [f"{author} was born in {town}.", f" {sentences(rng, 2 + i // 5 % 5)}"]],
            [f"Hill {i}", [sentences(rng, 2)]],
        ]
        facts = [[book, 0], [author, 0]]
        for name, question, answer in (
            ("", f"Where was the author of {book} born?", town),
            ("y", "Is it a book?", "yes"),
        ):
            row = {"_id": f"{i}{name}", "question": question, "answer": answer}
            rows.append({**row, "supporting_facts": facts, "context": context})
    return rows
