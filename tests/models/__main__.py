"""The full explorations, minutes each: `python -m tests.models`."""

from tests.models import actor, inplace, tree

if __name__ == "__main__":
    print("parent and child:", tree.Model().explore())
    print("children in place:", inplace.Model().explore())
    print("one actor:", actor.Model().explore())
