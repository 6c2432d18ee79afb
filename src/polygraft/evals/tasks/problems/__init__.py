"""Procedural word problems: contamination-free, unlimited, exact, parallel across languages."""

from polygraft.evals.tasks.problems.generate import Problem, generate, prompt, question_text
from polygraft.evals.tasks.problems.stories import stories, story_languages
from polygraft.evals.tasks.problems.text import languages

__all__ = ["Problem", "generate", "languages", "prompt", "question_text", "stories", "story_languages"]
