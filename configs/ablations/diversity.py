# With the diversity loss of the official code.
_base_ = './no_router.py'

model = dict(
    head=dict(diversity=dict(_delete_=True, type='DiversityLoss', weight=0.45, gamma=0.05))
)
