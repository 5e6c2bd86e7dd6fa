"""Everything that users compute, computed once and written down: the half of scripts/same_answers that runs twice.

`python -m probe SECTION RESULT.json` runs in a folder of its own, with the package that is to be probed first on
PYTHONPATH. It drives what is published (classes, commands, routes, files), so that one probe fits two trees whose
modules have other names. Models and data are made up here, from seeds.
"""
