"""In PYTHONPATH beside a copy of the package, it lets Python import that copy where an editable install is in its way.

Python runs it when it starts. An editable install has a finder, which would come before every path.
"""

import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
