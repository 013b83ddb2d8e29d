"""``kubectl toe``: find, fetch and look at what the collector holds, with the user's own kubeconfig.

What belongs here: reading arguments, asking the aggregated API, printing, and writing fetched artifacts. What does not:
rights (the API server and the collector decide), and anything that decodes a profile other than by `profiles`.

Threats, and where they are met: text from the cluster that drives a terminal (text), names that lead out of the chosen
folder and links that wait in it (folder, naming), bytes that are not what was promised (ranges, download), and a page
that opens in the user's browser (opening: a private folder; the page's own policy lets nothing out).
"""
