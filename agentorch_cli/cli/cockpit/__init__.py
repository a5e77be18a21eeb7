"""`agentorch top`: an application of Textual, which comes with the extra `tui`.

`lists` says what the tables show, sort and filter; `grid` is the table; `pages` are what Enter opens;
`app` puts them together. Nothing else imports this package, so that no other command loads Textual.
"""
