# The experiments of new_classes.json and ../answers/next_labels.json, in the
# current folder:
#
#   bash results/new_labels/run.sh DATA_ROOT
#
# DATA_ROOT holds cifar-100-python/.
set -e

# CIFAR-100-LT as files: cifar/SPLIT/CLASS/INDEX.png.
python - "$1" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image

from ride_mm.datasets import CIFAR100LT

for split in ('train', 'unused', 'test'):
    dataset = CIFAR100LT(data_root=sys.argv[1], split=split)
    for index, image in enumerate(dataset):
        path = Path('cifar', split, dataset.CLASSES[image['gt_label']], f'{index:05}.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image['img']).save(path)
PYTHON

# The recipe of ride_lite0_cifar100_lt.py for the files in a folder.
write_config() {  # FILE FOLDER CLASSES CLASS_COUNTS
    cat > "$1" <<CONFIG
_base_ = 'ride_mm::ride_lite0_cifar100_lt.py'

load = dict(type='LoadImageFromFile')
images = dict(_delete_=True, type='LongTailList', data_root='$2')
model = dict(head=dict(num_classes=$3))
train_dataloader = dict(
    dataset=dict(images, data_prefix='train', pipeline=[load, *_base_.train_pipeline])
)
test_set = dict(
    images,
    data_prefix='test',
    class_counts='$4',
    pipeline=[load, *_base_.val_dataloader.dataset.pipeline],
)
val_dataloader = dict(dataset=test_set)
test_dataloader = dict(dataset=test_set)
CONFIG
}

some() {  # SEED OPTIONS: draw lines, the same ones for the same seed
    shuf --random-source=<(yes "$1") "${@:2}"
}

# New classes: every tenth class is left out, then added from a few images.
mkdir cifar90
cp -r cifar/train cifar/test cifar90
ls cifar/train | awk 'NR % 10 == 5' > left_out.txt
for name in $(cat left_out.txt); do rm -r cifar90/*/"$name"; done
write_config cifar90.py cifar90 90 train
ride-mm train cifar90.py --work-dir work_dirs/cifar90
ride-mm test cifar90.py work_dirs/cifar90/epoch_15.pth --out work_dirs/old.npz
for number in 5 20; do for draw in 0 1 2; do
    new=new_${number}_$draw
    for name in $(cat left_out.txt); do
        mkdir -p "$new/$name"
        ls -d cifar/unused/"$name"/* | some $draw | head -n $number | xargs cp -t "$new/$name"
    done
    for scale in 0.85 1; do
        name=work_dirs/${new}_scale_$scale
        ride-mm add-classes cifar90.py work_dirs/cifar90/epoch_15.pth $new --scale $scale \
            --out $name.pth --out-config $name.py
        ride-mm test $name.py $name.pth --out $name.npz \
            --cfg-options test_dataloader.dataset.data_root=cifar
    done
done; done

# Next labels: half of the training images of each class have labels. 500 of the
# other half get one, chosen at random or by the model, and all is trained anew.
for seed in 0 1 2; do
    half=half_$seed pool=pool_$seed
    for name in $(ls cifar/train); do
        mkdir -p "$half/train/$name" "$pool/$name"
        ls -d cifar/train/"$name"/* | some $seed > images.txt
        number=$((($(wc -l < images.txt) + 1) / 2))
        head -n $number images.txt | xargs cp -t "$half/train/$name"
        tail -n +$((number + 1)) images.txt | xargs -r cp -t "$pool/$name"
    done
    ln -s ../cifar/test $half/test
    options="--epochs 6 --no-validate --test --cfg-options randomness.seed=$seed"
    write_config $half.py $half 100 train
    ride-mm train $half.py --work-dir work_dirs/$half $options
    ride-mm pick $half.py work_dirs/$half/epoch_6.pth $pool -n 500 \
        --out work_dirs/picked_$seed.csv
    tail -n +2 work_dirs/picked_$seed.csv | cut -d, -f1 > picked_$seed.txt
    find $pool -name '*.png' | sort | some $seed -n 500 > random_$seed.txt
    for run in random_$seed picked_$seed; do
        cp -r $half $run
        while read -r file; do
            cp "$file" "$run/train/$(basename "$(dirname "$file")")"
        done < $run.txt
        write_config cifar_$run.py $run 100 ../$half/train
        ride-mm train cifar_$run.py --work-dir work_dirs/$run $options
    done
done

runs=()
for how in random half picked; do for seed in 0 1 2; do
    runs+=("$how=work_dirs/${how}_$seed/predictions.npz")
done; done
ride-mm compare "${runs[@]}" --json next_labels.json
