"""The service that stores artifacts and gives them to whoever may read them.

What belongs here: captures and their records, uploads, the store on disk, tokens and rights, reading. What does not:
deciding what to capture (controllers), other sinks, and everything about an API server's HTTP (kube).

What it defends against, by whom, and where:
- A pod author with a token of the right audience: audience is no authorisation. Username, capture and leaf are checked
  against the record that the operator registered (`auth`, `upload`).
- An uploader who lies about size, name or digest, or never ends: limits of the record, own byte cap, pace (`upload`,
  `bodies`, `ingest`). Nothing is ever decompressed or unpacked.
- Names that leave the store: paths are built from the record alone, each segment made safe (`paths`), and walked by
  directory descriptors that follow no link (`disk`).
- Slow or many peers: deadlines and caps per address before TLS (`listener`).
- A crash at any instant: link-based commit in an order that never shows half an artifact (`storage`).
- A reader without rights: refused before anything is counted or named (`api`).
"""
