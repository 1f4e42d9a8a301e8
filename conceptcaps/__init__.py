"""ConceptCaps: concept-labelled music datasets at scale.

Importing the package loads neither torch nor ray; each module imports what it needs where it needs it.
"""

__version__ = "0.1.0"
