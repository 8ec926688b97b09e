# One network with the compute of RIDE's three experts, cross entropy.
_base_ = './single_balanced_softmax.py'

model = dict(
    head=dict(
        classifier=dict(_delete_=True, type='LinearClassifier'),
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
    )
)
