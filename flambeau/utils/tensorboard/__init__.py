"""Logs that TensorBoard shows: `SummaryWriter`.

`messages.py` writes protocol buffers, `records.py` the file of records, `summaries.py`, `images.py`
and `embedding.py` what is logged, `charts.py` what TensorBoard's plug-ins want, `graphs.py`
modules as graphs, `writer.py` is what users hold. Nothing of TensorBoard is needed to write.
"""

from flambeau.utils.tensorboard.writer import FileWriter, SummaryWriter

__all__ = ["FileWriter", "SummaryWriter"]
