"""The service that stores artifacts and gives them to whoever may read them.

What belongs here: captures and their records, uploads, the stores, tokens and rights, reading, retention. What does
not: deciding what to capture (controllers), other sinks, and everything about an API server's HTTP (kube).

What it defends against, by whom, and where:
- A pod author with a token of the right audience: audience is no authorisation. Username, capture and leaf are checked
  against the record that the operator registered (`auth`, `upload`).
- An uploader who lies about size, name or digest, or never ends: limits of the record, own byte cap, pace (`upload`,
  `bodies`, `ingest`, `uploads`). What is uploaded is never decompressed or unpacked here.
- Names that leave the store: paths are built from the record alone, each segment made safe (`paths`), and walked by
  directory descriptors that follow no link (`disk`).
- Slow or many peers: deadlines and caps per address before TLS (`listener`).
- A crash at any instant: link-based commit in an order that never shows half an artifact (`storage`; `s3store` says
  what a bucket cannot promise).
- A reader without rights: refused before anything is counted or named (`api`).
- Somebody who poses as the API server or as a proxy: identities in headers are believed from the holder of the right
  certificate alone (`frontproxy`, `identity`).
- A profile made to exhaust or to take over whoever draws it: parsed by a confined child only (`rendering`).
- A page that foreign names or bytes turn against its viewer: no text is markup, nothing is served inline (`pages`).
"""
