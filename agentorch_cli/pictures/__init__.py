"""Pictures of work: the graph of tasks that wait for each other, and when each was worked on.

Pure: a document of `task.graph` or `task.timeline` goes in, text comes out, for a terminal, as SVG,
as one HTML page, for Mermaid and for Graphviz. Nothing here reads a file, a clock or a database, so
the command line, the web page and a remote client all draw the same. Names and notes are written
by others: each form escapes them in its own way, after `text.one_line`.
"""
