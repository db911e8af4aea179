"""Commands on pictures: predict, track, embed, search, few-shot.

Nothing imports it: `plugin` names its commands by import string.
"""
