_base_ = './imagenet_lt.py'

dataset_type = 'PlacesLT'
# images of Places365 and, beside them, Places_LT_{train,val,test}.txt
data_root = 'data/places_lt'

train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
