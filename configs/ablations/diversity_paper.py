# With the diversity loss as in the formula of the paper.
_base_ = './no_router.py'

model = dict(
    head=dict(
        diversity=dict(_delete_=True, type='DiversityLoss', form='paper', weight=0.01, gamma=0.05)
    )
)
