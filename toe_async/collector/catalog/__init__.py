"""Which artifacts there are, and how long they stay: the index beside the files, and the retention that thins it out.

The manifests beside the artifacts are the truth; the index (`file`, `catalog`) is a SQLite file that may be lost,
broken or behind at any time and is made whole again from them (`building`). What decides is pure: which artifacts a
query selects (`query`), which ones have to go (`retention`); `janitor` does what was decided. What does not belong
here: who may ask (auth), what an answer looks like (api), how artifacts are stored (storage and the other backends).
"""

from toe_async.collector.catalog.catalog import Catalog, open_catalog
from toe_async.collector.catalog.query import LARGEST_PAGE, Entry, FieldTerm, Page, Query, Usage

__all__ = ["LARGEST_PAGE", "Catalog", "Entry", "FieldTerm", "Page", "Query", "Usage", "open_catalog"]
