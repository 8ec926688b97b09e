"""The top of a report: what it is about, and the key figures."""

from mmengine.config import Config

from ride_mm.analysis.report.figure_maker import FigureMaker
from ride_mm.analysis.report.findings import Findings
from ride_mm.analysis.report.page import Card, Facts, Note, Section
from ride_mm.engine.config import find_hook, innermost_dataset, type_name
from ride_mm.utils.errors import UserError


def page_title(found: Findings) -> str:
    """The title of the page: the name of the config."""
    config = found.source.predictions.run['config']
    return config.replace('\\', '/').split('/')[-1].removesuffix('.py')


def summary(found: Findings) -> str:
    """What the page is about, in a sentence or two."""
    counts = found.classes.counts
    text = (
        f'{len(found.main):,} test images of {len(counts):,} classes, '
        f'which have {max(counts):,} to {min(counts):,} training images. '
    )
    if found.is_routed:
        return text + (
            'The figures are those of the routed model: experts '
            'run one after the other until a router stops.'
        )
    if found.routed is not None:
        return text + (
            'The figures are those of all experts, as the config '
            'says; the router is evaluated separately.'
        )
    return text


def cards(found: Findings) -> list[Card]:
    """The key figures."""
    shown = [
        Card(
            name,
            f'{found.figures[f"long_tail/{name}"]:.1f}%',
            _all_experts(found, f'long_tail/{name}'),
        )
        for name in found.groups
    ]
    shown.append(
        Card(
            'calibration error',
            f'{found.figures["calibration/ece"]:.1f}%',
            _all_experts(found, 'calibration/ece'),
        )
    )
    if found.is_routed:
        usage = found.usage_figures
        shown += [
            Card('experts per image', f'{usage["mean"]:.2f}', f'of {found.num_experts}'),
            Card('compute', f'{100 * usage["compute"]:.0f}%', 'of all experts'),
        ]
    return shown


def _all_experts(found: Findings, key: str) -> str:
    if found.all_experts is None:
        return ''
    return f'all experts {found.all_experts[key]:.1f}%'


def configuration(found: Findings, _: FigureMaker) -> Section:
    """What was trained."""
    run, counts = found.source.predictions.run, found.classes.counts
    config = found.source.training
    try:
        facts = {} if config is None else describe_config(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'the config of the training is not one for ride_mm or mmpretrain: {error}'
        ) from error
    facts['classes'] = (
        f'{len(counts):,}, from {max(counts):,} down to '
        f'{min(counts):,} training images, {sum(counts):,} '
        'in all'
    )
    facts['test images'] = f'{len(found.main):,}'
    if found.routing is not None:
        facts['prediction'] = _describe_routing(found)
    facts['checkpoint'] = run['checkpoint']
    section = Section(
        'configuration', 'Configuration', 'The model and its training data.', [Facts(facts)]
    )
    if config is None:
        section.parts.append(
            Note(
                'Settings of the model are left out: pass the config of the '
                f'test with `--config {run["config"]}`.'
            )
        )
    return section


def _describe_routing(found: Findings) -> str:
    values = ', '.join(f'{value:g}' for value in found.routing)
    if len(set(found.routing)) == 1:
        values = f'{found.routing[0]:g}'
    if found.all_experts is None:
        return f'all experts; routing is shown at threshold {values}'
    return f'routed, threshold {values}'


def describe_config(config: Config) -> dict[str, str]:
    """Say in a few words what a config trains, as far as it tells.

    Args:
        config (Config): Of any model.

    Returns:
        dict[str, str]: Key-value list.
    """
    model = config.get('model') or {}
    head = model.get('head') or {}
    experts = model.get('num_experts') or head.get('num_experts')
    facts = {
        'model': _name(model) + (f', {experts} experts' if experts else ''),
        'trunk' if experts else 'network': _name(model.get('backbone'), 'depth', 'arch'),
        'loss': ' and '.join(
            filter(
                None,
                (_name(head.get(part), 'weight', 'max_margin') for part in ('loss', 'diversity')),
            )
        ),
        'training set': _name(
            innermost_dataset(config.get('train_dataloader')), 'imb_type', 'imb_factor'
        ),
        'training': ', '.join(_describe_training(config)),
    }
    return {term: text for term, text in facts.items() if text}


def _name(part: object, *options: str) -> str:
    """The type of a part, and some of its options where it has them."""
    if not isinstance(part, dict) or 'type' not in part:
        return ''
    values = [
        f'{name.replace("_", " ")} {part[name]}'
        for name in options
        if isinstance(part.get(name), (int, float, str))
    ]
    text = type_name(part)
    return f'{text} ({", ".join(values)})' if values else text


def _describe_training(config: Config) -> list[str]:
    loader = config.get('train_dataloader') or {}
    texts = [_describe_epochs(config)]
    if 'batch_size' in loader:
        texts.append(f'batches of {loader["batch_size"]}')
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer')
    texts.append(_name(optimizer, 'lr', 'weight_decay'))
    seed = (config.get('randomness') or {}).get('seed')
    if seed is not None:
        texts.append(f'seed {seed}')
    return list(filter(None, texts))


def _describe_epochs(config: Config) -> str:
    epochs = (config.get('train_cfg') or {}).get('max_epochs')
    if epochs is None:
        return ''
    two_stage = find_hook(config, 'TwoStageHook')
    if two_stage is not None:
        begin = two_stage['begin']
        return f'{begin} epochs of the experts, {epochs - begin} of the router'
    return f'{epochs} epochs'
