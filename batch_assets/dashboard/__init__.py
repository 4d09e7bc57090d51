"""The dashboard: a page in the browser that shows a root, and changes nothing in it."""
