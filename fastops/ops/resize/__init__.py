"""Operations that resample, warp or rearrange images."""
