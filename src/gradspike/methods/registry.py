"""The methods by name. Light: imports no torch. A new method needs a line here, a file and a YAML."""

from __future__ import annotations

from gradspike.methods.options import MethodConfig
from gradspike.registry import Registry

METHODS: Registry[MethodConfig] = Registry(
    "method",
    MethodConfig,
    {
        "fixed_sg": "gradspike.methods.fixed_sg:FixedSg",
        "lsg": "gradspike.methods.lsg:Lsg",
        "mpd_agl": "gradspike.methods.mpd_agl:MpdAgl",
        "ds_atgo": "gradspike.methods.ds_atgo:DsAtgo",
        "psg": "gradspike.methods.psg:Psg",
        "psg_pda": "gradspike.methods.psg:PsgPda",
        "ltmd": "gradspike.methods.ltmd:Ltmd",
        "trsg": "gradspike.methods.trsg:Trsg",
        "asgl": "gradspike.methods.asgl:Asgl",
        "dspike": "gradspike.methods.dspike:Dspike",
        "im_loss": "gradspike.methods.im_loss:ImLoss",
        "mpd_sgr": "gradspike.methods.mpd_sgr:MpdSgr",
        "diet_snn": "gradspike.methods.diet_snn:DietSnn",
    },
)
