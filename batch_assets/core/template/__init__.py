"""One row -> the params of one request, and what is checked of them before."""
