"""The list of PALM's rivals on frozen features."""

from __future__ import annotations

from palmkit.methods.cross_modal import CrossModalProbe
from palmkit.methods.gda import GDA
from palmkit.methods.kernel_ridge import KernelRidge, ProductKernelRidge
from palmkit.methods.linear_probe import LinearProbe
from palmkit.methods.lp_plus_plus import LPPlusPlus
from palmkit.methods.malp import MALP
from palmkit.methods.prototypes import CentredMix, Prototypes, TextPrototypes
from palmkit.methods.ss_text import SSText
from palmkit.methods.taskres import TaskRes
from palmkit.methods.tip_adapter import TipAdapter, TipAdapterF, Treff, TreffF
from palmkit.methods.transclip import TextMixture, TransCLIP
from palmkit.methods.zs_lp import CLAPProbe, ZeroShotProbe

# In the order of tables. `experiments.trials` has their names, too.
RIVALS = (
    LinearProbe,
    Prototypes,
    TextPrototypes,
    CentredMix,
    ZeroShotProbe,
    CLAPProbe,
    TaskRes,
    CrossModalProbe,
    LPPlusPlus,
    SSText,
    TipAdapter,
    TipAdapterF,
    Treff,
    TreffF,
    GDA,
    KernelRidge,
    ProductKernelRidge,
    MALP,
    # transductive
    TransCLIP,
    TextMixture,
)
