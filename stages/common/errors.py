"""The one exception that is meant for the person at the keyboard."""


class AttuneError(Exception):
    """Something the user can put right; shown as a message, never as a traceback.

    Args:
        what: what is wrong and where (file, line, row, column, key).
        fix: what to do now.
        keep_outs: the stage's outs are complete and say why it ends with an error, so they are kept.
        passing: it may be gone in a while without anybody's help, as with a network, so that trying again makes sense.
    """

    def __init__(self, what: str, fix: str = "", *, keep_outs: bool = False, passing: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.keep_outs = keep_outs
        self.passing = passing

    def __str__(self) -> str:
        return f"{self.what}\n  → {self.fix}" if self.fix else self.what
