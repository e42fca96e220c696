"""ZIP and CBZ archives: pages out of one, and sketches into another that is otherwise the same."""

from sketchify_rt.batch.archives.directory import Member, Page
from sketchify_rt.batch.archives.reader import Archive
from sketchify_rt.batch.archives.writer import Book

__all__ = ["Archive", "Book", "Member", "Page"]
