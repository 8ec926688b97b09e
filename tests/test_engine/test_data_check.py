import numpy as np
from mmengine.config import Config
from PIL import Image
from runs import build_runner, digits_config


def test_a_training_says_what_is_twice(root, tmp_path):
    random = np.random.default_rng(0)
    for name in ('a/0.png', 'a/1.png', 'b/0.png', 'b/1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = random.integers(256, size=(8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / 'train.txt').write_text('a/0.png 0\na/1.png 0\nb/0.png 1\na/0.png 1\n')
    (tmp_path / 'val.txt').write_text('b/0.png 1\nb/1.png 1\n')
    cfg: Config = digits_config(root, tmp_path / 'run')
    cfg.model.head.num_classes = cfg.model.head.router.topk = 2
    for name in ('train', 'val'):
        loader = cfg[f'{name}_dataloader']
        loader.dataset = dict(
            type='LongTailList',
            data_root=str(tmp_path),
            ann_file=f'{name}.txt',
            class_counts='train.txt',
            pipeline=[
                dict(type='LoadImageFromFile', color_type='grayscale'),
                *loader.dataset.pipeline,
            ],
        )
    cfg.train_dataloader.batch_size = 4
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.two_stage = cfg.default_hooks.reweighting = None
    runner = build_runner(cfg)
    said = []
    runner.logger.warning = lambda text, *_: said.append(text)
    runner.train()
    twice, both = (text for text in said if 'by their path' in text)
    assert f'{tmp_path}/train.txt:4: {tmp_path}/a/0.png, class 1' in twice
    assert both.startswith('train, val: images of val that are in train as')


def test_nothing_to_say_of_the_digits(root, tmp_path):
    cfg = digits_config(root, tmp_path, **{'train_cfg.max_epochs': 1})
    cfg.default_hooks.two_stage = cfg.default_hooks.reweighting = None
    runner = build_runner(cfg)
    said = []
    runner.logger.warning = lambda text, *_: said.append(text)
    runner.train()
    assert not [text for text in said if 'train, val' in text]
