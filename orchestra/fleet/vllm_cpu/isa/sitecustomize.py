"""Makes torch report no AVX-512 and no AMX, in a vLLM server whose instruction set is limited by `ONEDNN_MAX_CPU_ISA`.

oneDNN obeys that variable, and ATen obeys `ATEN_CPU_CAPABILITY`. vLLM 0.32 obeys neither: it chooses its kernels by
these three functions. `orchestra.fleet.supervisor.vllm_launch` puts this folder on the path of such a server, so that
each of its Python processes imports this module.
"""

import torch


def _unsupported() -> bool:
    return False


torch.cpu._is_avx512_supported = _unsupported
torch.cpu._is_avx512_bf16_supported = _unsupported
torch.cpu._is_amx_tile_supported = _unsupported
