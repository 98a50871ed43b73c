"""Define the errors that the clients raise for an answer, or for a missing one."""

from offkey.schemas.operations import Problem


class ProblemError(Exception):
    """The service refused the request.

    Attributes:
        problem: answer of the service, with the reason and the values it depends on.
    """

    def __init__(self, problem: Problem) -> None:
        clip = (problem.model_extra or {}).get("clip")
        prefix = f"{clip}: " if clip is not None and str(clip) not in problem.detail else ""
        super().__init__(f"{prefix}{problem.detail} (request {problem.request_id})")
        self.problem = problem

    @property
    def kind(self) -> str:
        """The error kind, such as `empty-bank`."""
        return self.problem.type.rpartition(":")[2]


class UnreachableError(Exception):
    """The service gave no answer, or the answer is not one of Offkey."""
