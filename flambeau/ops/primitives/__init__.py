"""The primitives: elementwise maths, structure (movement, reduction, lookup), contraction,
scans, order.

Every primitive states its shape and dtype rule, its gradient in terms of primitives, and, if it is
elementwise, how to emit itself. All operands of an elementwise primitive have one shape and, but
for `where` and `cast`, one dtype: ops broadcast and promote before they get here.
"""

from flambeau.ops.primitives import batching, gradients, tangents  # noqa: F401 - register rules
from flambeau.ops.primitives.bits import *  # noqa: F403
from flambeau.ops.primitives.contraction import *  # noqa: F403
from flambeau.ops.primitives.elementwise import *  # noqa: F403
from flambeau.ops.primitives.float8 import *  # noqa: F403
from flambeau.ops.primitives.fourier import *  # noqa: F403
from flambeau.ops.primitives.gamma import *  # noqa: F403
from flambeau.ops.primitives.margins import *  # noqa: F403
from flambeau.ops.primitives.order import *  # noqa: F403
from flambeau.ops.primitives.pooling import *  # noqa: F403
from flambeau.ops.primitives.resampling import *  # noqa: F403
from flambeau.ops.primitives.sampling import *  # noqa: F403
from flambeau.ops.primitives.scan import *  # noqa: F403
from flambeau.ops.primitives.segments import *  # noqa: F403
from flambeau.ops.primitives.structure import *  # noqa: F403
