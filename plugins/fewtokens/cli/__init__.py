"""The command-line tools: the main function of each, and what they share.

Each imports OpenMMLab if it needs it, and no other does: `fewtokens.openmmlab` before any package of OpenMMLab's.
"""
