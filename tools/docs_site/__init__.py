"""The static site: `make site` writes it to build/site. tools/build_site.py calls these modules.

pages: which pages there are. gallery: the notebooks as cards. names: the public names.
reference: their pages, and the command line's. docstrings: plain docstrings for Sphinx.
links: the check of what was built. conf: the settings of Sphinx.
"""
