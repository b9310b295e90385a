"""`SummaryWriter`: logs a run for TensorBoard."""

from __future__ import annotations

import datetime
import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flambeau.utils.tensorboard import charts, summaries
from flambeau.utils.tensorboard.embedding import write_embedding
from flambeau.utils.tensorboard.graphs import graph_of_module, graph_of_onnx
from flambeau.utils.tensorboard.images import as_pixels, boxed, figure_pixels
from flambeau.utils.tensorboard.messages import message
from flambeau.utils.tensorboard.records import EventFile, event
from flambeau.utils.tensorboard.summaries import array_of

__all__ = ["FileWriter", "SummaryWriter"]


class FileWriter:
    """Writes events to a file in a folder.

    Args:
        max_queue: events after which the file is flushed; `flush_secs`: seconds after which it is.
    """

    def __init__(self, log_dir: str | os.PathLike, max_queue: int = 10, flush_secs: float = 120,
                 filename_suffix: str = "") -> None:
        self.folder = os.fspath(log_dir)
        self.file = EventFile(self.folder, max_queue, flush_secs, filename_suffix)

    def get_logdir(self) -> str:
        """The folder."""
        return self.folder

    def add_summary(self, summary: bytes, global_step: Any = None, walltime: float | None = None
                    ) -> None:
        """Append a Summary message."""
        self.file.add(event(_step(global_step), walltime, (5, summary)))

    def add_graph(self, graph: bytes, statistics: bytes | None = None,
                  walltime: float | None = None) -> None:
        """Append a GraphDef, and the RunMetadata of its first run."""
        self.file.add(event(None, walltime, (4, graph)))
        if statistics is not None:
            tagged = message((1, "step1"), (2, statistics))
            self.file.add(event(None, walltime, (8, tagged)))

    def flush(self) -> None:
        """Let the system have all events."""
        self.file.flush()

    def close(self) -> None:
        """Flush and close."""
        self.file.close()


def _step(value: Any) -> int | None:
    return None if value is None else int(value)


class SummaryWriter:
    """Logs numbers, texts, images and more for TensorBoard; a context that closes itself.

    Values are tensors, arrays or numbers; `global_step` is the training step, `walltime` the
    seconds since 1970 if not now.

    Args:
        log_dir: the folder; by default runs/ and the date, the host's name and `comment`.
        purge_step: hide what an earlier run, which broke off, logged from this step on.
        max_queue: events after which the file is flushed; `flush_secs`: seconds after which it is.
        filename_suffix: of the event file.
    """

    def __init__(self, log_dir: str | os.PathLike | None = None, comment: str = "",
                 purge_step: int | None = None, max_queue: int = 10, flush_secs: float = 120,
                 filename_suffix: str = "") -> None:
        if not log_dir:
            now = datetime.datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{now}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        self.purge_step = purge_step
        self._options = max_queue, flush_secs, filename_suffix
        self.file_writer: FileWriter | None = None
        self.all_writers: dict[str, FileWriter] = {}
        self._get_file_writer()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _get_file_writer(self) -> FileWriter:
        """The writer of the folder; a closed one is opened anew."""
        if self.file_writer is None:
            self.file_writer = FileWriter(self.log_dir, *self._options)
            self.all_writers[self.log_dir] = self.file_writer
            if self.purge_step is not None:
                started = message((1, 1))
                self.file_writer.file.add(event(self.purge_step, None, (7, started)))
                self.purge_step = None
        return self.file_writer

    def _add(self, summary: bytes, step: Any, walltime: float | None) -> None:
        self._get_file_writer().add_summary(summary, step, walltime)

    def get_logdir(self) -> str:
        """The folder."""
        return self.log_dir

    def flush(self) -> None:
        """Let the system have all events."""
        for writer in self.all_writers.values():
            writer.flush()

    def close(self) -> None:
        """Flush and close; adding opens a new file."""
        for writer in self.all_writers.values():
            writer.close()
        self.file_writer, self.all_writers = None, {}

    # ------------------------------------------------------------------ numbers and text
    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None,
                   walltime: float | None = None, new_style: bool = False,
                   double_precision: bool = False) -> None:
        """Log a number."""
        self._add(summaries.scalar(tag, scalar_value, new_style, double_precision), global_step,
                  walltime)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping[str, Any],
                    global_step: int | None = None, walltime: float | None = None) -> None:
        """Log numbers that one chart shows; each gets a folder of its own below the run's."""
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, f"{main_tag.replace('/', '_')}_{tag}")
            if folder not in self.all_writers:
                self.all_writers[folder] = FileWriter(folder, *self._options)
            self.all_writers[folder].add_summary(summaries.scalar(main_tag, value), global_step,
                                                 walltime)

    def add_tensor(self, tag: str, tensor: Any, global_step: int | None = None,
                   walltime: float | None = None) -> None:
        """Log an array as it is."""
        self._add(summaries.tensor(tag, tensor), global_step, walltime)

    def add_text(self, tag: str, text_string: str, global_step: int | None = None,
                 walltime: float | None = None) -> None:
        """Log a text, in Markdown."""
        self._add(summaries.text(tag, text_string), global_step, walltime)

    def add_histogram(self, tag: str, values: Any, global_step: int | None = None,
                      bins: Any = "tensorflow", walltime: float | None = None,
                      max_bins: int | None = None) -> None:
        """Log how values are distributed; `bins` as in `numpy.histogram`."""
        self._add(summaries.histogram_of(tag, values, bins, max_bins), global_step, walltime)

    def add_histogram_raw(self, tag: str, min: float, max: float, num: int, sum: float,
                          sum_squares: float, bucket_limits: Sequence, bucket_counts: Sequence,
                          global_step: int | None = None, walltime: float | None = None) -> None:
        """Log a histogram that is counted already."""
        self._add(summaries.histogram(tag, min, max, num, sum, sum_squares,
                                      array_of(bucket_limits).tolist(),
                                      array_of(bucket_counts).tolist()), global_step, walltime)

    # ------------------------------------------------------------------ images
    def add_image(self, tag: str, img_tensor: Any, global_step: int | None = None,
                  walltime: float | None = None, dataformats: str = "CHW") -> None:
        """Log an image: floats in [0, 1], or bytes; `dataformats` names its dimensions."""
        self._add(summaries.image(tag, as_pixels(array_of(img_tensor), dataformats)), global_step,
                  walltime)

    def add_images(self, tag: str, img_tensor: Any, global_step: int | None = None,
                   walltime: float | None = None, dataformats: str = "NCHW") -> None:
        """Log a batch of images as one picture."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_image_with_boxes(self, tag: str, img_tensor: Any, box_tensor: Any,
                             global_step: int | None = None, walltime: float | None = None,
                             rescale: float = 1, dataformats: str = "CHW",
                             labels: Sequence[str] | None = None) -> None:
        """Log an image with (n, 4) boxes: left, top, right, bottom, in pixels.

        Raises:
            NotImplementedError: labels, or another scale.
        """
        if labels is not None or rescale != 1:
            raise NotImplementedError("add_image_with_boxes draws outlines only: leave out "
                                      "`labels` and `rescale`, or draw with Matplotlib and "
                                      "add_figure")
        pixels = as_pixels(array_of(img_tensor), dataformats)
        self._add(summaries.image(tag, boxed(pixels, array_of(box_tensor))), global_step, walltime)

    def add_figure(self, tag: str, figure: Any, global_step: int | None = None,
                   close: bool = True, walltime: float | None = None) -> None:
        """Log a Matplotlib figure, or several side by side, which are closed then."""
        several = figure if isinstance(figure, list) else [figure]
        pixels = [figure_pixels(each) for each in several]
        if close:
            from matplotlib import pyplot

            for each in several:
                pyplot.close(each)
        if isinstance(figure, list):
            self.add_image(tag, np.stack(pixels), global_step, walltime, "NHWC")
        else:
            self.add_image(tag, pixels[0], global_step, walltime, "HWC")

    def add_video(self, tag: str, vid_tensor: Any, global_step: int | None = None,
                  fps: float = 4, walltime: float | None = None) -> None:
        """Log (batch, time, channels, height, width) as a moving picture; needs Pillow."""
        frames = array_of(vid_tensor)
        if frames.ndim != 5:
            raise ValueError("add_video: (batch, time, channels, height, width) is expected, got "
                             f"the shape {frames.shape}")
        try:
            from PIL import Image
        except ImportError:
            raise ImportError("add_video writes a GIF with Pillow, which is not installed: "
                              "pip install pillow") from None
        pictures = [Image.fromarray(as_pixels(frames[:, t], "NCHW"))
                    for t in range(frames.shape[1])]
        file = io.BytesIO()
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:],
                         duration=int(1000 / fps), loop=0)
        width, height = pictures[0].size
        self._add(summaries.encoded(tag, height, width, 3, file.getvalue()), global_step, walltime)

    def add_audio(self, tag: str, snd_tensor: Any, global_step: int | None = None,
                  sample_rate: int = 44100, walltime: float | None = None) -> None:
        """Log sound: one channel of numbers in [-1, 1]."""
        self._add(summaries.audio(tag, snd_tensor, sample_rate), global_step, walltime)

    # ------------------------------------------------------------------ plug-ins
    def add_pr_curve(self, tag: str, labels: Any, predictions: Any,
                     global_step: int | None = None, num_thresholds: int = 127,
                     weights: Any = None, walltime: float | None = None) -> None:
        """Log a precision-recall curve of probabilities in [0, 1] and labels 0 or 1."""
        rows = charts.pr_counts(labels, predictions, min(num_thresholds, 127), weights)
        self._add(summaries.pr_curve(tag, rows), global_step, walltime)

    def add_pr_curve_raw(self, tag: str, true_positive_counts: Any, false_positive_counts: Any,
                         true_negative_counts: Any, false_negative_counts: Any, precision: Any,
                         recall: Any, global_step: int | None = None, num_thresholds: int = 127,
                         weights: Any = None, walltime: float | None = None) -> None:
        """Log a precision-recall curve that is counted already, for growing thresholds."""
        rows = np.stack([array_of(each).reshape(-1) for each in (
            true_positive_counts, false_positive_counts, true_negative_counts,
            false_negative_counts, precision, recall)])
        self._add(summaries.pr_curve(tag, rows), global_step, walltime)

    def add_hparams(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any],
                    hparam_domain_discrete: Mapping[str, Sequence] | None = None,
                    run_name: str | None = None, global_step: int | None = None) -> None:
        """Log hyperparameters and what came of them, in a folder of their own below the run's.

        Raises:
            TypeError: no dictionaries; ValueError: a value that is no number, bool or text.
        """
        if not isinstance(hparam_dict, Mapping) or not isinstance(metric_dict, Mapping):
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        begin = charts.experiment(hparam_dict, metric_dict, hparam_domain_discrete)
        folder = os.path.join(self.log_dir, run_name or str(time.time()))
        with SummaryWriter(folder) as writer:
            for summary in (begin, *charts.session(hparam_dict)):
                writer._add(summary, None, None)
            for name, value in metric_dict.items():
                writer.add_scalar(name, value, global_step)

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence]]) -> None:
        """Arrange charts: {category: {title: ["Multiline" or "Margin", tags]}}."""
        self._add(charts.layout(layout), None, None)

    def add_custom_scalars_multilinechart(self, tags: Sequence[str], category: str = "default",
                                          title: str = "untitled") -> None:
        """One chart with the curves of these tags."""
        self.add_custom_scalars({category: {title: ["Multiline", tags]}})

    def add_custom_scalars_marginchart(self, tags: Sequence[str], category: str = "default",
                                       title: str = "untitled") -> None:
        """One chart with a curve between two bounds: three tags."""
        self.add_custom_scalars({category: {title: ["Margin", tags]}})

    def add_mesh(self, tag: str, vertices: Any, colors: Any = None, faces: Any = None,
                 config_dict: Mapping | None = None, global_step: int | None = None,
                 walltime: float | None = None) -> None:
        """Log a mesh or point cloud: (batch, n, 3) vertices, colours and faces."""
        parts = {"VERTEX": vertices, "FACE": faces, "COLOR": colors}
        for summary in charts.mesh(tag, parts, config_dict):
            self._add(summary, global_step, walltime)

    def add_embedding(self, mat: Any, metadata: Sequence | None = None, label_img: Any = None,
                      global_step: int | None = None, tag: str = "default",
                      metadata_header: Sequence[str] | None = None) -> None:
        """Log (n, d) vectors for the projector, with labels and (n, C, H, W) pictures."""
        name = f"{0 if global_step is None else int(global_step):05d}"
        write_embedding(self.log_dir, f"{name}/{tag}", mat, metadata, label_img, metadata_header,
                        tag)

    def add_graph(self, model: Any, input_to_model: Any = None, verbose: bool = False,
                  use_strict_trace: bool = True) -> None:
        """Log the operations of a module as a graph: those of one run, with the time each took.

        Args:
            input_to_model: the argument of the run, or a tuple of them.
            verbose: print the names of the nodes.
            use_strict_trace: accepted; the run may use any Python.
        """
        graph, statistics, names = graph_of_module(model, input_to_model)
        self._get_file_writer().add_graph(graph, statistics)
        if verbose:
            print(names)

    def add_onnx_graph(self, prototxt: Any) -> None:
        """Log the graph of an ONNX file, given its path."""
        self._get_file_writer().add_graph(graph_of_onnx(prototxt))
