import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import _inductor
from torch.nn.modules.module import register_module_buffer_registration_hook

from ride_mm.datasets.augmentation_seeds import seed_everything
from ride_mm.engine.optim_wrappers import AmpOptimWrapper
from ride_mm.models.classifiers import inference
from ride_mm.models.macs import macs_by_part, relative_compute
from ride_mm.models.utils import compile_options
from ride_mm.structures import BatchDataSample, gather_scores
from ride_mm.utils.errors import UserError

COUNTS = [50, 40, 30, 20, 10, 8, 6, 4, 3, 2]


def build(cfg, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg, **kwargs))
    model.head.set_class_counts(COUNTS)
    return model


def images(n=12, size=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, size, size, generator=generator)


def samples(n=12):
    return [DataSample().set_gt_label(i % 10) for i in range(n)]


def batch(n=12):
    return dict(inputs=images(n), data_samples=samples(n))


@torch.no_grad()
def predict(model, x, **test_cfg):
    model.test_cfg.update(test_cfg)
    predictions = model.eval().predict(x)
    model.add_compute(predictions, tuple(x.shape[1:]))
    return predictions


def scores(predictions):
    return torch.stack([sample.pred_score for sample in predictions])


def used(predictions):
    return [sample.num_experts_used for sample in predictions]


# ----------------------------------------------------------------- inputs


def test_batch_data_samples_are_as_good_as_a_list(tiny_model):
    model = build(
        tiny_model, data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0] * 3, to_rgb=True)
    )
    labels = torch.cat([sample.gt_label for sample in samples()])
    one, other = (
        model.data_preprocessor(dict(inputs=images(), data_samples=data_samples), training=True)
        for data_samples in (samples(), BatchDataSample(labels))
    )
    assert torch.equal(one['inputs'], other['inputs'])
    model.eval()
    losses = [model.loss(**data) for data in (one, other)]
    assert losses[0].keys() == losses[1].keys()
    for name in losses[0]:
        assert torch.equal(losses[0][name], losses[1][name])


@pytest.mark.parametrize(
    'augment',
    [
        dict(type='Mixup', alpha=1.0),
        dict(type='CutMix', alpha=1.0),
        dict(type='Remix'),
    ],
)
def test_mixed_batches(tiny_model, augment):
    """Of both kinds, with the same loss."""
    model = build(tiny_model, train_cfg=dict(augments=augment)).eval()
    model.set_class_counts(COUNTS)
    labels = torch.cat([sample.gt_label for sample in samples()])
    results = []
    for data_samples in (samples(), BatchDataSample(labels)):
        seed_everything(3)
        data = model.data_preprocessor(
            dict(inputs=images(), data_samples=data_samples), training=True
        )
        assert not torch.equal(data['inputs'], images())
        assert torch.equal(
            torch.stack([sample.gt_score for sample in data['data_samples']]),
            gather_scores(data['data_samples']),
        )
        results.append(
            (data['inputs'], gather_scores(data['data_samples']), model.loss(**data)['loss_cls'])
        )
    for one, other in zip(*results):
        assert torch.equal(one, other)
    plain = model.loss(results[0][0], BatchDataSample(labels))
    assert plain['loss_cls'] != results[0][2]


def test_the_router_sees_real_images(tiny_model):
    model = build(
        tiny_model, train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)), stage='router'
    )
    data = model.data_preprocessor(batch(), training=True)
    assert torch.equal(data['inputs'], images())


def test_kept_router_inputs_give_the_same_loss(tiny_model):
    model = build(tiny_model, stage='router').train()
    labels = torch.cat([sample.gt_label for sample in samples()])
    kept = model.router_inputs(images(), labels)
    assert not any(column.requires_grad for column in kept)
    data = model.data_preprocessor(dict(inputs=kept), training=True)
    expected = model.loss(images(), samples())['loss_router']
    torch.testing.assert_close(model.loss(**data)['loss_router'], expected)


def test_a_batch_that_is_not_packed(tiny_model):
    with pytest.raises(UserError, match="'img'.*PackInputs.*collate_batch"):
        build(tiny_model).data_preprocessor(dict(img=images()))


def test_convolutions_are_channels_last(tiny_model):
    model = build(tiny_model)
    channels_last = torch.channels_last
    for parameter in model.parameters():
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=channels_last)
    seen = []
    model.neck.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.loss(images(), samples())
    predict(model, images())
    assert len(seen) == 2
    for trunk in seen:
        assert trunk[-1].is_contiguous(memory_format=channels_last)


def test_the_compiler_chooses_the_memory_format(tiny_model):
    """That of torch 2.11 fails on channels last."""
    model = build(tiny_model, compile=dict(backend='eager'))
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    seen = []

    def spy(model, inputs, *args):
        seen.append(inputs)
        return model._step.function(model, inputs, *args)

    model._step.compiled = spy
    model.loss(images().contiguous(memory_format=torch.channels_last), samples())
    assert len(seen) == 1 and seen[0].is_contiguous()


@pytest.mark.parametrize('threads', [1, 2])
def test_compiled_code_is_kept_by_number_of_threads(threads):
    """It holds the number, which the key of inductor's cache lacks."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        options = compile_options(True)
    finally:
        torch.set_num_threads(before)
    assert options == dict(dynamic=False, options={'cpp.threads': threads})
    assert set(options['options']) <= set(_inductor.list_options())


@pytest.mark.parametrize(
    'own',
    [
        dict(backend='aot_eager'),
        dict(mode='reduce-overhead'),
        dict(options={'max_autotune': True}),
    ],
)
def test_options_of_the_compiler_are_the_users(own):
    assert compile_options(own) == dict(dynamic=False, **own)
    assert compile_options(dict(own, dynamic=True)) == dict(dynamic=True, **own)


# ------------------------------------------------------------- prediction


def test_ensemble_is_the_mean_of_logits(tiny_model):
    model = build(tiny_model).eval()
    predictions = predict(model, images(), mode='ensemble')
    with torch.no_grad():
        expected = (
            torch.stack(
                [
                    model.head.classifiers[k](model.neck.experts[k](model.backbone(images())[-1]))
                    for k in range(3)
                ]
            )
            .mean(0)
            .softmax(1)
        )
    torch.testing.assert_close(scores(predictions), expected)
    assert used(predictions) == [3] * 12
    assert {p.relative_compute for p in predictions} == {1.0}
    labels = torch.cat([p.pred_label for p in predictions])
    assert torch.equal(labels, expected.argmax(1))


def test_logit_adjustment_changes_scores_and_not_the_route(tiny_model):
    model = build(tiny_model)
    plain = predict(model, images(), mode='route')
    adjusted = predict(model, images(), logit_adjustment=2.0)
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    torch.testing.assert_close(
        scores(adjusted), torch.nn.functional.normalize(scores(plain) / prior**2, p=1)
    )
    assert used(adjusted) == used(plain)
    assert model.adjusts_logits


def test_threshold_0_is_the_ensemble(tiny_model):
    model = build(tiny_model)
    routed = predict(model, images(), mode='route', threshold=0)
    ensemble = predict(model, images(), mode='ensemble')
    torch.testing.assert_close(scores(routed), scores(ensemble), rtol=1e-5, atol=1e-6)
    assert used(routed) == [3] * 12


def test_threshold_1_is_the_first_expert(tiny_model):
    model = build(tiny_model)
    # As sure as can be that more experts are needed: still not above 1.
    model.head.router.fc.bias.data.fill_(1e6)
    # Compute is measured once, by running every expert.
    predict(model, images(1), mode='route')
    calls = []
    model.neck.experts[1].register_forward_hook(lambda *_: calls.append(1))
    routed = predict(model, images(), mode='route', threshold=1)
    with torch.no_grad():
        feature = model.neck.experts[0](model.backbone(images())[-1])
        expected = model.head.classifiers[0](feature).softmax(1)
    assert torch.equal(scores(routed), expected)
    assert used(routed) == [1] * 12
    assert not calls  # the empty sub-batch ran nothing


def test_threshold_0_ignores_a_sure_router(tiny_model):
    model = build(tiny_model)
    model.head.router.fc.bias.data.fill_(-1e6)
    routed = predict(model, images(), mode='route', threshold=0)
    assert used(routed) == [3] * 12


def plain_route(model, x, *thresholds):
    """Image by image, as the method is told in words."""
    results = []
    for image in x.split(1):
        trunk = model.backbone(image)[-1]
        logits, count = 0, 0
        for k in range(3):
            feature = model.neck.experts[k](trunk)
            logits = logits + model.head.classifiers[k](feature)
            count += 1
            if k == 2:
                break
            doubt = model.head.router(k, feature, logits / count)
            if not torch.sigmoid(doubt).item() > thresholds[k]:
                break
        results.append((count, (logits / count).softmax(1)[0]))
    return results


def test_routing_image_by_image(tiny_model):
    model = build(tiny_model).eval()
    x = images(40)
    with torch.no_grad():
        feature = model.neck.experts[0](model.backbone(x)[-1])
        doubts = model.head.router(0, feature, model.head.classifiers[0](feature))
    # Between two images, so that rounding decides nothing.
    middle = torch.sigmoid(doubts).sort().values[19:21]
    threshold = middle.mean().item()
    assert middle.diff() > 1e-6
    with torch.no_grad():
        expected = plain_route(model, x, threshold, threshold)
    routed = predict(model, x, mode='route', threshold=threshold)
    assert used(routed) == [count for count, _ in expected]
    assert len(set(used(routed))) > 1
    torch.testing.assert_close(
        scores(routed), torch.stack([score for _, score in expected]), rtol=1e-4, atol=1e-5
    )


def split_thresholds(model, x):
    """Thresholds that send about half of the images on, from each router;
    between two images, so that rounding decides nothing."""
    feats = model.neck(model.backbone(x))
    logits = model.head.expert_logits(feats)
    doubts = model.head.router.all_logits(feats, logits).sigmoid()
    middle = doubts.sort().values
    return middle[:, [len(x) // 2 - 1, len(x) // 2]].mean(1).tolist()


def test_a_threshold_for_each_router(tiny_model):
    model = build(tiny_model).eval()
    x = images(40)
    with torch.no_grad():
        thresholds = split_thresholds(model, x)
        expected = plain_route(model, x, *thresholds)
    routed = predict(model, x, mode='route', threshold=thresholds)
    assert used(routed) == [count for count, _ in expected]
    assert set(used(routed)) == {1, 2, 3}


def test_auto_routes_once_the_router_is_trained(tiny_model):
    model = build(tiny_model)
    model.head.router.fc.bias.data.fill_(-1e6)
    assert used(predict(model, images())) == [3] * 12
    model.head.router.num_updates += 1
    assert used(predict(model, images())) == [1] * 12


def test_relative_compute(tiny_model):
    model = build(tiny_model)
    macs = macs_by_part(model, (3, 16, 16))
    compute = relative_compute(macs, routed=True)
    everything = macs['trunk'][0] + sum(macs['experts'])
    first = macs['trunk'][0] + macs['experts'][0] + macs['routers'][0]
    assert compute[0] == first / everything
    assert compute[2] == 1 + sum(macs['routers']) / everything
    # 16x16: a convolution by hand, conv1 of the trunk 3 -> 16.
    assert macs['trunk'][0] > 3 * 16 * 9 * 16 * 16


def test_expert_logits_on_request(tiny_model):
    model = build(tiny_model, test_cfg=dict(mode='ensemble', expert_logits=True))
    prediction = predict(model, images())[0]
    assert prediction.expert_logits.shape == (3, 10)
    torch.testing.assert_close(prediction.expert_logits.mean(0).softmax(0), prediction.pred_score)
    with torch.no_grad():
        assert model.infer(images())[2].shape == (3, 12, 10)


def test_router_logits_on_request(tiny_model):
    """They say who would have stopped where, and with which scores."""
    request = dict(mode='ensemble', expert_logits=True, logit_adjustment=2.0)
    model = build(tiny_model, test_cfg=request).eval()
    model.set_class_counts(range(100, 0, -10))
    model.head.set_temperature(2.5)
    assert 'router_logits' not in predict(model, images())[0]
    model.head.router.num_updates += 1
    with torch.no_grad():
        thresholds = split_thresholds(model, images())
    asked = predict(model, images())
    routed = predict(model, images(), mode='route', threshold=thresholds, expert_logits=False)
    assert len(set(used(routed))) > 1
    for sample, expected in zip(asked, routed):
        goes_on = sample.router_logits.sigmoid() > torch.tensor(thresholds)
        count = 1 + int(goes_on.long().cumprod(0).sum())
        assert count == expected.num_experts_used
        assert sample.routed_compute[count - 1] == expected.relative_compute
        torch.testing.assert_close(
            sample.expert_logits[:count].mean(0).softmax(0), expected.pred_score
        )


def test_temperature_is_kept_with_the_weights(tiny_model):
    model, other = build(tiny_model), build(tiny_model)
    assert not any('temperature' in key for key in model.state_dict())
    plain = predict(model, images(), mode='ensemble')
    model.head.set_temperature(2.5)
    other.load_state_dict(model.state_dict())
    warm = predict(other, images(), mode='ensemble')
    with torch.no_grad():
        logits = model(images())
    torch.testing.assert_close(scores(warm), (logits / 2.5).softmax(1))
    assert torch.equal(scores(warm).argmax(1), scores(plain).argmax(1))
    # A checkpoint without one has none.
    other.load_state_dict(build(tiny_model).state_dict())
    torch.testing.assert_close(scores(predict(other, images(), mode='ensemble')), scores(plain))


def test_sets_are_kept_with_the_weights(tiny_model):
    model, other = build(tiny_model), build(tiny_model)
    assert 'pred_set' not in predict(model, images())[0]
    thresholds = torch.linspace(0.05, 0.2, 10)
    model.test_cfg.update(mode='ensemble')
    model.head.set_prediction_sets(thresholds.tolist(), model.set_settings)
    other.load_state_dict(model.state_dict())
    for sample in predict(other, images(), mode='ensemble'):
        held = sample.pred_score >= thresholds
        held[sample.pred_label] = True
        assert sample.pred_set.tolist() == held.nonzero().flatten().tolist()
    # They hold for no other settings, nor for other frequencies.
    assert 'pred_set' not in predict(other, images(), mode='ensemble', logit_adjustment=0.1)[0]
    assert (
        'pred_set'
        not in predict(other, images(), mode='ensemble', logit_adjustment=0.0, prior=[1] * 10)[0]
    )
    other.head.router.num_updates += 1
    assert 'pred_set' not in predict(other, images(), mode='route', threshold=0.5, prior=None)[0]
    assert 'pred_set' in predict(other, images(), mode='route', threshold=0.0)[0]
    # A new temperature changes the scores.
    other.head.set_temperature(2.0)
    assert 'pred_set' not in predict(other, images(), mode='ensemble')[0]
    model.load_state_dict(build(tiny_model).state_dict())
    assert model.head.set_thresholds is None


@pytest.mark.parametrize('mode', ['ensemble', 'route'])
def test_a_cpu_predicts_part_by_part(tiny_model, monkeypatch, mode):
    model = build(tiny_model, test_cfg=dict(mode=mode)).eval()
    middle = model.head.router.fc.bias.data
    middle -= middle_logit(model)
    with torch.no_grad():
        expected = model.infer(images())
        # Parts of 5, 5 and 2 images of 16 x 16.
        monkeypatch.setattr(inference, '_CPU_PIXELS', 5 * 16 * 16 + 100)
        sizes = []
        model.backbone.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        found = model.infer(images())
        assert sizes == [5, 5, 2]
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert (len(found[1].unique()) > 1) == (mode == 'route')


@torch.no_grad()
def middle_logit(model):
    """About half of the images are sent on by the first router."""
    feature = model.neck.experts[0](model.backbone(images())[-1])
    logits = model.head.classifiers[0](feature)
    return model.head.router(0, feature, logits).median()


def test_tensor_mode_is_the_mean_of_logits(tiny_model):
    model = build(tiny_model).eval()
    with torch.no_grad():
        logits = model(images())
    torch.testing.assert_close(logits.softmax(1), scores(predict(model, images(), mode='ensemble')))


def test_predict_fills_given_samples(tiny_model):
    model = build(tiny_model).eval()
    given = samples()
    with torch.no_grad():
        predictions = model.predict(images(), given)
    assert predictions[3] is given[3]
    assert given[3].gt_label.item() == 3


# --------------------------------------------------------------- training


def train(model, steps=1, wrapper=OptimWrapper, **kwargs):
    optim_wrapper = wrapper(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), **kwargs
    )
    model.train()
    for _ in range(steps):
        log = model.train_step(batch(), optim_wrapper)
    return {key: value.item() for key, value in log.items()}


def test_stage_experts_leaves_the_router_alone(tiny_model):
    model = build(tiny_model)
    before = copy.deepcopy(model.state_dict())
    log = train(model)
    assert log['loss'] == pytest.approx(log['loss_cls'] + log['loss_diversity'], rel=1e-6)
    assert log['loss_diversity'] <= 0
    # logged as losses, and not counted twice
    of_experts = [log[f'expert/loss_{k}'] for k in (1, 2, 3)]
    assert sum(of_experts) == pytest.approx(log['loss_cls'], rel=1e-6)
    for key, value in model.state_dict().items():
        unchanged = torch.equal(value, before[key])
        assert unchanged == key.startswith('head.router')


def test_stage_router_trains_nothing_else(tiny_model):
    model = build(tiny_model, stage='router')
    before = copy.deepcopy(model.state_dict())
    log = train(model)
    assert set(log) == {'loss', 'loss_router'}
    assert model.training and model.head.router.training
    assert not model.backbone.training and not model.neck.training
    changed = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    # Running means of BatchNorm included, all else is as it was.
    assert changed and all(key.startswith('head.router') for key in changed)
    assert model.head.router.trained


def test_amp_on_the_cpu(tiny_model, monkeypatch):
    monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cpu')
    plain, mixed = build(tiny_model), build(tiny_model)
    seen = []
    mixed.backbone.conv1.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    mixed.head.classifiers[0].register_forward_hook(
        lambda module, args, out: seen.append(out.dtype)
    )
    expected = train(plain)
    log = train(mixed, wrapper=AmpOptimWrapper)
    assert seen == [torch.bfloat16, torch.float32]
    assert log['loss'] == pytest.approx(expected['loss'], rel=0.02)
    assert mixed.backbone.conv1.weight.dtype == torch.float32
    mixed.set_stage('router')
    assert train(mixed, wrapper=AmpOptimWrapper)['loss'] > 0


def test_amp_wrapper_state_and_mistakes(monkeypatch):
    monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cpu')
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    wrapper = AmpOptimWrapper(optimizer=optimizer, clip_grad=dict(max_norm=1.0))
    wrapper.update_params((3 * parameter).sum())
    assert parameter.item() == pytest.approx(0.9)
    wrapper.load_state_dict(wrapper.state_dict())
    with pytest.raises(UserError, match='bfloat16'):
        AmpOptimWrapper(optimizer=optimizer, dtype='float16')


@pytest.mark.parametrize('stage', ['experts', 'router'])
def test_compiled_step(tiny_model, stage):
    """One graph, and the same losses."""
    tiny_model.num_experts = 2  # the compiler takes its time for each
    plain = build(tiny_model, stage=stage).double().train()
    compiled = (
        build(tiny_model, stage=stage, compile=dict(fullgraph=True, backend='aot_eager'))
        .double()
        .train()
    )
    logs = []
    for model in (plain, compiled):
        losses = model.loss(images().double(), samples())
        sum(losses.values()).backward()
        logs.append({key: loss.item() for key, loss in losses.items()})
    assert logs[1] == pytest.approx(logs[0], rel=1e-10)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(compiled.get_parameter(name).grad, parameter.grad)
    # A copy runs on its own weights.
    twin = copy.deepcopy(compiled)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    losses = twin.loss(images().double(), samples())
    assert sum(losses.values()).item() != pytest.approx(sum(logs[1].values()))


def test_router_step_registers_no_buffer(tiny_model):
    """The compiled step would break at a hook that a failed export leaves behind."""
    model = build(tiny_model, stage='router').train()
    registered = []
    handle = register_module_buffer_registration_hook(
        lambda module, name, buffer: registered.append(name)
    )
    model.loss(images(), samples())
    handle.remove()
    assert model.head.router.num_updates == 1 and not registered


def test_frozen_stages_of_the_user_stay_frozen(root):
    from mmengine.config import Config

    cfg = Config.fromfile(root / 'configs/_base_/models/ride_r50.py').model
    cfg.backbone.frozen_stages = 1
    model = MODELS.build(cfg)
    assert not model.backbone.layer1[0].conv1.weight.requires_grad
    assert model.backbone.layer2[0].conv1.weight.requires_grad


# ----------------------------------------------------------- checkpoints


def test_another_architecture_is_refused(tiny_model):
    model = build(tiny_model)
    more = copy.deepcopy(tiny_model)
    more.num_experts = 4
    with pytest.raises(UserError, match='only in the checkpoint'):
        model.load_state_dict(build(more).state_dict())
    with pytest.raises(UserError, match='not in the checkpoint'):
        build(more).load_state_dict(model.state_dict())
    wider = copy.deepcopy(tiny_model)
    wider.head.router.topk = 7
    message = r'\(1, 21\), the checkpoint float32 \(1, 23\)'
    state = build(wider).state_dict()
    model.load_state_dict(state)  # of an untrained router nothing is lost
    state = dict(state, **{'head.router.num_updates': torch.tensor(1)})
    with pytest.raises(UserError, match=message):
        model.load_state_dict(state)


def test_a_checkpoint_without_router_is_whole(tiny_model):
    model = build(tiny_model)
    state = {
        key: value for key, value in build(tiny_model).state_dict().items() if 'router' not in key
    }
    result = model.load_state_dict(state, strict=False)
    assert all('router' in key for key in result.missing_keys)


def test_losses_leave_nothing_in_the_checkpoint(tiny_model):
    keys = build(tiny_model).state_dict()
    assert not [k for k in keys if 'loss' in k or 'diversity' in k]
    assert 'head.class_weights' not in keys


# --------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(stage='routers'), 'stage="routers"'),
        (dict(test_cfg=dict(mode='routed')), 'mode="routed"'),
        (dict(test_cfg=dict(treshold=0.3)), 'treshold'),
        (dict(test_cfg=dict(threshold=30)), 'between 0 and 1'),
        (dict(test_cfg=dict(threshold=[0.5, 0.5, 0.5])), 'each of 2 routers'),
        (dict(test_cfg=dict(mode='route', expert_logits=True)), 'ensemble'),
    ],
)
def test_users_mistakes(tiny_model, change, message):
    with pytest.raises(UserError, match=message):
        build(tiny_model, **change)


def test_router_asked_for_where_there_is_none(tiny_model):
    tiny_model.head.router = None
    with pytest.raises(UserError, match='model.head.router'):
        build(tiny_model, stage='router')
    with pytest.raises(UserError, match='model.head.router'):
        build(tiny_model, test_cfg=dict(mode='route'))


def test_widths_must_agree(tiny_model):
    tiny_model.neck.expert.out_channels = (32, 64)
    with pytest.raises(UserError, match='in_channels=48.* 64 channels'):
        build(tiny_model)


def test_numbers_of_experts_must_agree(tiny_model):
    tiny_model.pop('num_experts')
    tiny_model.neck.num_experts, tiny_model.head.num_experts = 2, 3
    with pytest.raises(UserError, match='neck.num_experts=2'):
        build(tiny_model)


# --------------------------------------------------------------- counting


def test_prediction_runs_the_trunk_once(tiny_model):
    model, calls = build(tiny_model).eval(), []
    model.backbone.register_forward_hook(lambda *_: calls.append(0))
    with torch.no_grad():
        model.predict(images())
        assert len(calls) == 1
        # What an image takes is counted once, for what a dataloader gives.
        model.test_step(batch())
        counted = len(calls)
        samples = model.test_step(batch())
    assert len(calls) == counted + 1
    assert samples[0].relative_compute == 1
