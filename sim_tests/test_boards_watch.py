"""The lines that tell how far place and route is follow the log that nextpnr writes."""

from __future__ import annotations

from zeroskip.boards.watch import RouteWatch

LOG = """\
Info: Packing IOs..
Info:     at iteration #14, type ALL: wirelen solved = 36440, spread = 221598, legal = 240164; time = 2.72s
Info: Routing 44270 arcs.
Info:    IterCnt |  w/ripup   wo/ripup |  w/r  wo/r |      arcs| batch(sec) total(sec)|
Info:       1000 |      548        451 |  548   451 |     44115|       3.80       3.80|
"""


class Watched:
    """A watch with a clock of its own."""

    def __init__(self, log):
        self.now = 0.0
        self.said: list[tuple[str, float]] = []
        self.watch = RouteWatch(log, lambda *said: self.said.append(said), 30, lambda: self.now)

    def at(self, seconds):
        self.now = seconds
        self.watch()
        return self.said[-1] if self.said else None


def test_states_follow_the_log(tmp_path):
    log = tmp_path / "nextpnr.log"
    watched = Watched(log)
    assert watched.at(31) == ("packing", 31)
    lines = LOG.splitlines(keepends=True)
    log.write_text("".join(lines[:2]))
    assert watched.at(62) == ("placing, iteration 14", 62)
    log.write_text("".join(lines[:-1]) + lines[-1][:-4])
    assert watched.at(93) == ("placing, iteration 14", 93)
    log.write_text(LOG)
    assert watched.at(124) == ("routing, 44,115 of 44,270 arcs left", 124)
    with log.open("a") as more:
        more.write("Info:     iter=67 wires=250312 overused=50 overuse=51 tmgfail=0 archfail=NA\n")
    assert watched.at(155) == ("routing, round 67, 50 wires used twice", 155)


def test_little_is_said(tmp_path):
    watched = Watched(tmp_path / "nextpnr.log")
    for second in range(100):
        watched.at(second)
    assert [seconds for _, seconds in watched.said] == [30, 60, 90]
