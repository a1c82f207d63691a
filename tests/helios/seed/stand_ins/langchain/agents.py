"""A stand-in for an agent: it does what the function it was made with does."""


class AgentExecutor:
    def __init__(self, act):
        self.act = act

    def run(self, task):
        return self.act(task)
