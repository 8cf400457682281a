"""The full explorations, minutes each: `python -m tests.models`."""

from tests.models import actor, inplace, leaving, record, stale, travel, tree

if __name__ == "__main__":
    print("parent and child:", tree.Model().explore())
    print("replicas that lag:", stale.Model(expiries=1, rescues=0).explore())
    print("record and ageing log:", record.Model(crashes=2).explore())
    print("time travel:", travel.Model(crashes=1, expiries=1, rescues=0).explore())
    print("children in place:", inplace.Model().explore())
    print("hosts that leave:", leaving.Model().explore())
    print("one actor:", actor.Model().explore())
