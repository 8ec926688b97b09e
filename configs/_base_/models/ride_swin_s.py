# RIDE on Swin-S: as on Swin-T, with 18 blocks in stage 3.
_base_ = './ride_swin_t.py'

model = dict(
    # 0.3 for the last of the 24 blocks
    backbone=dict(drop_path_rate=0.3 * 3 / 23),
    neck=dict(expert=dict(arch='small', drop_path_rate=0.3)),
)
