# RIDE with the diversity loss as the paper's formula has it: the divergence of
# each pair of experts, with temperatures by class from the first epoch on.
# Its weight has to stay below 1 / scale of the cosine classifier: see
# docs/recipes.md.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(head=dict(diversity=dict(form='paper', weight=0.02)))
