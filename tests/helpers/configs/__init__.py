"""Small, unusual configurations of each family: one module per `model_type`, with `CONFIGS`.

The first is the family's usual form, under its `model_type`. All tests of all families take them from
`helpers.families.CONFIGS`.
"""

VOCABULARY = 99  # words
