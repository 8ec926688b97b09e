"""The top of a report: its title, summary, key figures and configuration."""

from mmengine.config import Config

from ride_mm.analysis.report.findings import Findings
from ride_mm.analysis.report.page import Card, Facts, Note, Section
from ride_mm.engine.config import find_hook, innermost_dataset, type_name
from ride_mm.utils.errors import UserError


def page_title(found: Findings) -> str:
    """Return the title of the page: the name of the config."""
    return found.main.run['config'].replace('\\', '/').split('/')[-1].removesuffix('.py')


def summary(found: Findings) -> str:
    """Describe in a sentence or two what the page is about."""
    counts = found.groups.counts
    text = (
        f'{len(found.main):,} test images of {len(counts):,} classes, '
        f'which have {max(counts):,} to {min(counts):,} training images. '
    )
    if found.is_routed:
        text += (
            'The figures are those of the routed model: experts run one after the other until a '
            'router stops.'
        )
    elif found.thresholds is not None:
        text += (
            'The figures are those of all experts, as set in the config; the router is evaluated '
            'separately.'
        )
    return text


def cards(found: Findings) -> list[Card]:
    """Return the key figures."""
    keys = {name: f'long_tail/{name}' for name in found.members}
    shown = [
        Card(
            title,
            f'{found.figures[key]:.1f}%',
            f'all experts {found.all_experts[key]:.1f}%' if found.all_experts else '',
        )
        for title, key in {**keys, 'calibration error': 'calibration/ece'}.items()
    ]
    if found.usage is not None and found.is_routed:
        usage = found.usage
        shown += [
            Card('experts per image', f'{usage["mean"]:.2f}', f'of {found.num_experts}'),
            Card('compute', f'{100 * usage["compute"]:.0f}%', 'of all experts'),
        ]
    return shown


def configuration(found: Findings) -> Section:
    """Model, training data and checkpoint."""
    run, counts = found.main.run, found.groups.counts
    config = found.source.training
    try:
        facts = {} if config is None else describe_config(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'the config of the training is not one for ride_mm or mmpretrain: {error}'
        ) from error
    facts['classes'] = (
        f'{len(counts):,}, from {max(counts):,} down to {min(counts):,} training images, '
        f'{sum(counts):,} in all'
    )
    facts['test images'] = f'{len(found.main):,}'
    if found.thresholds is not None:
        shown = 'routed,' if found.is_routed else 'all experts; routing is shown at'
        facts['prediction'] = f'{shown} {found.threshold_label}'
    facts['checkpoint'] = run['checkpoint']
    parts: list = [Facts(facts)]
    if config is None:
        parts.append(
            Note(
                'Settings of the model are left out: pass the config of the test with `--config '
                f'{run["config"]}`.'
            )
        )
    return Section('configuration', 'Configuration', 'The model and its training data.', parts)


def describe_config(config: Config) -> dict[str, str]:
    """Summarize what a config trains, as far as it is known.

    Args:
        config (Config): The config of any model.

    Returns:
        dict[str, str]: Key-value list.
    """
    model = config.get('model') or {}
    head = model.get('head') or {}
    experts = model.get('num_experts') or head.get('num_experts')
    losses = (_name(head.get(part), 'weight', 'max_margin') for part in ('loss', 'diversity'))
    training_set = innermost_dataset(config.get('train_dataloader'))
    facts = {
        'model': _name(model) + (f', {experts} experts' if experts else ''),
        'trunk' if experts else 'network': _name(model.get('backbone'), 'depth', 'arch'),
        'loss': ' and '.join(filter(None, losses)),
        'training set': _name(training_set, 'imb_type', 'imb_factor'),
        'training': ', '.join(filter(None, _describe_training(config))),
    }
    return {term: text for term, text in facts.items() if text}


def _name(part: object, *options: str) -> str:
    """The type of a part, with those of the options that it sets."""
    if not isinstance(part, dict) or 'type' not in part:
        return ''
    values = [
        f'{name.replace("_", " ")} {part[name]}'
        for name in options
        if isinstance(part.get(name), (int, float, str))
    ]
    return type_name(part) + (f' ({", ".join(values)})' if values else '')


def _describe_training(config: Config) -> list[str]:
    epochs = (config.get('train_cfg') or {}).get('max_epochs')
    two_stage = find_hook(config, 'TwoStageHook')
    batch_size = (config.get('train_dataloader') or {}).get('batch_size')
    seed = (config.get('randomness') or {}).get('seed')
    if epochs is None:
        schedule = ''
    elif two_stage is None:
        schedule = f'{epochs} epochs'
    else:
        begin = two_stage['begin']
        schedule = f'{begin} epochs of the experts, {epochs - begin} of the router'
    return [
        schedule,
        '' if batch_size is None else f'batches of {batch_size}',
        _name((config.get('optim_wrapper') or {}).get('optimizer'), 'lr', 'weight_decay'),
        '' if seed is None else f'seed {seed}',
    ]
