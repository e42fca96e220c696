"""A video -> the same video as sketches, with its sound: frames through the engine one by one.

    file ──demux──▶ packets ──decode──▶ luma ──engine──▶ sketches ──encode──▶ packets ──mux──▶ file
                       └──────── sound, subtitles, attachments: as they are ────────┘

Needs PyAV, which brings FFmpeg's libraries; importing this raises BackendUnavailable without it.
"""

try:
    import av  # noqa: F401
except ImportError as error:
    from sketchify_rt.errors import BackendUnavailable

    raise BackendUnavailable(
        f"videos need PyAV ({error}). To fix: pip install 'sketchify-rt[video]'"
    ) from error

from sketchify_rt.batch.kinds import video_name as result_name
from sketchify_rt.batch.video.convert import Engine, convert_video

__all__ = ["Engine", "convert_video", "result_name"]
