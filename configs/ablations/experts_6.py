_base_ = './no_router.py'

model = dict(num_experts=6)
