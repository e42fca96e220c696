"""ZIP and CBZ archives: reads their pages, and writes archives with sketches instead of them."""

from sketchify_rt.batch.archives.directory import Member, Page
from sketchify_rt.batch.archives.reader import Archive
from sketchify_rt.batch.archives.writer import Book

__all__ = ["Archive", "Book", "Member", "Page"]
