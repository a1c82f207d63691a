"""A stand-in for the model: it answers with the next of the texts it was given."""

from types import SimpleNamespace

answers = []
asked = []


class ChatCompletion:
    @staticmethod
    def create(model, messages, **options):
        asked.append(messages[-1]["content"])
        message = SimpleNamespace(content=answers[len(asked) - 1])
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])
