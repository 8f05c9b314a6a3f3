"""Folders as people have them, and how each is read or refused.

A case lists its files: `cat/3` is three pictures in `cat`, `{train,test}/{a,b}/3` is twelve, any
other word is one file of that name, and a word that ends in `/` is an empty folder. Sizes differ,
so that counts cannot be exchanged unnoticed.
"""

# ruff: noqa: E501 - a case that fits on one line is easier to read

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from towernet.data.source import Source
from towernet.data.table import SPLITS
from towernet.records.reading import DEFAULT, Reading


class Case(NamedTuple):
    """A folder, and what must become of it.

    Args:
        like: What it looks like, for the table.
        files: What is in it.
        expected: The classes, and the pictures of each split; or "refused: " and words of the
            sentence, divided by " … ".
        reading: The options.
        note: Words that the sentence about reading must contain.
    """

    like: str
    files: str
    expected: str
    reading: Reading = DEFAULT
    note: str = ""


CASES = [
    # --- one folder per class
    Case("one folder per class", "cat/3 dog/4", "cat, dog: 7"),
    Case(
        "Caltech-101: in one folder, with notes and annotations beside it",
        "101_ObjectCategories/{BACKGROUND_Google,accordion,ant}/3 README.txt Annotations/a/1.mat",
        "BACKGROUND_Google, accordion, ant: 9",
        note="no images in Annotations/",
    ),
    Case(
        "Stanford Dogs: Annotation/ with the same folders, of XML files without an ending",
        "Images/{n02085620-Chihuahua,n02085782-Japanese}/3 lists/train_list.mat"
        " Annotation/n02085620-Chihuahua/n02085620_7 Annotation/n02085782-Japanese/n02085782_2",
        "n02085620-Chihuahua, n02085782-Japanese: 6",
        note="no images in Annotation/, lists/",
    ),
    Case(
        "Food-101: images/ beside meta/ with lists",
        "images/{apple_pie,ramen}/4 meta/train.txt meta/classes.json license_agreement.txt",
        "apple_pie, ramen: 8",
        note="no images in meta/",
    ),
    Case(
        "DTD: images/, labels/ and imdb/ side by side",
        "dtd/images/{banded,dotted}/3 dtd/labels/train1.txt dtd/imdb/imdb.mat",
        "banded, dotted: 6",
        note="no images in dtd/imdb/, dtd/labels/",
    ),
    Case(
        "CUB-200: images/ and segmentations/ with the same folders",
        "CUB/images/{001.Albatross,002.Auklet}/4 CUB/segmentations/{001.Albatross,002.Auklet}/4"
        " CUB/images.txt CUB/parts/parts.txt",
        "001.Albatross, 002.Auklet: 8",
        note="left out: CUB/segmentations/ (8 files, beside CUB/images/)",
    ),
    Case(
        "EuroSAT: a year on top", "2750/{AnnualCrop,Forest,River}/3", "AnnualCrop, Forest, River: 9"
    ),
    Case(
        "a copy of the data inside it, and what a Mac adds",
        "{no,yes}/4 brain_tumor_dataset/{no,yes}/4 __MACOSX/no/._1.jpg .DS_Store",
        "no, yes: 8",
        note="left out: brain_tumor_dataset/ (8 files, a copy of what is beside it)",
    ),
    Case(
        "PlantVillage: a copy of the data among its classes",
        "PlantVillage/{Pepper,Potato,Tomato}/3 PlantVillage/PlantVillage/{Pepper,Potato,Tomato}/3",
        "Pepper, Potato, Tomato: 9",
        note="left out: PlantVillage/PlantVillage/ (9 files, a copy",
    ),
    Case(
        "pictures of each class in a folder `images`",
        "{cat,dog}/images/3",
        "cat, dog: 6",
        note="folders within a class folder belong to its class",
    ),
    Case(
        "annotations beside the pictures",
        "{cat,dog}/3 cat/1.xml dog/1.txt dog/2.json",
        "cat, dog: 6",
    ),
    Case(
        "a class folder of annotations only", "{cat,dog}/3 ant/1.xml", "cat, dog: 6", note="in ant/"
    ),
    Case(
        "`train` is a vehicle",
        "{car,plane,train}/3",
        "car, plane, train: 9",
        note="train is read as",
    ),
    Case("classes 0 to 9", "{0,1,2,3,4,5,6,7,8,9}/2", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9: 20"),
    # --- splits
    Case(
        "train/, val/, test/",
        "train/{a,b}/5 val/{a,b}/2 test/{a,b}/3",
        "a, b: 10 train, 4 validation, 6 test",
    ),
    Case(
        "brain tumor MRI: Training/ and Testing/",
        "Training/{glioma,notumor}/5 Testing/{glioma,notumor}/3",
        "glioma, notumor: 10 train, 6 test",
    ),
    Case(
        "the same, in a folder `archive`",
        "archive/Training/{glioma,notumor}/5 archive/Testing/{glioma,notumor}/3",
        "glioma, notumor: 10 train, 6 test",
    ),
    Case(
        "Intel scenes: seg_train/seg_train/ and pictures without labels in seg_pred/seg_pred/",
        "seg_train/seg_train/{glacier,sea}/5 seg_test/seg_test/{glacier,sea}/3 seg_pred/seg_pred/6",
        "glacier, sea: 10 train, 6 test",
        note="left out: seg_pred/ (6 files, not a split)",
    ),
    Case(
        "GTSRB: Train/ with classes, Test/ without, Meta/ and lists",
        "Train/{0,1,10}/4 Test/6 Meta/3 Train.csv Test.csv Meta.csv",
        "0, 1, 10: 12 train",
        note="left out: Meta/ (3 files, not a split); Test/ has no class folders: its 6 files",
    ),
    Case(
        "chest X-ray: a copy of everything beside the splits",
        "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/3 __MACOSX/chest_xray/._train"
        " chest_xray/chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/3",
        "NORMAL, PNEUMONIA: 6 train, 6 validation, 6 test",
        note="left out: chest_xray/chest_xray/ (18 files",
    ),
    Case(
        "ASL alphabet: the split at the end of a longer name, test pictures without labels",
        "asl_alphabet_train/asl_alphabet_train/{A,B,space}/4 asl_alphabet_test/asl_alphabet_test/3",
        "A, B, space: 12 train",
        note="asl_alphabet_test/ has no class folders",
    ),
    Case(
        "tiny-imagenet: pictures in train/CLASS/images/, val/images/ and test/images/ unlabelled",
        "tiny/train/{n01443537,n01629819}/images/5 tiny/val/images/4 tiny/test/images/3"
        " tiny/train/n01443537/n01443537_boxes.txt tiny/val/val_annotations.txt tiny/wnids.txt",
        "n01443537, n01629819: 10 train",
        note="has no class folders but images/",
    ),
    Case(
        "imagenette: train/ and val/ and a CSV with other labels",
        "imagenette2/{train,val}/{n01440764,n02102040}/3 imagenette2/noisy_imagenette.csv",
        "n01440764, n02102040: 6 train, 6 validation",
    ),
    Case(
        "MNIST as pictures: training/ and testing/",
        "training/{0,1}/4 testing/{0,1}/2",
        "0, 1: 8 train, 4 test",
    ),
    Case(
        "FER2013, capitals",
        "TRAIN/{angry,happy}/4 TEST/{angry,happy}/2",
        "angry, happy: 8 train, 4 test",
    ),
    Case(
        "names of two words, with a blank",
        "Training~Data/{a,b}/4 Validation~Data/{a,b}/2",
        "a, b: 8 train, 4 validation",
    ),
    Case(
        "train_images/ and dev-set/",
        "train_images/{a,b}/4 dev-set/{a,b}/2 models/2 predictions/3",
        "a, b: 8 train, 4 validation",
        note="left out: models/ (2 files, not a split), predictions/ (3 files, not a split)",
    ),
    Case(
        "Fruits-360: Training/, Test/ and mixed pictures beside them",
        "Training/{Apple,Banana}/4 Test/{Apple,Banana}/2 test-multiple_fruits/3 LICENSE",
        "Apple, Banana: 8 train, 4 test",
        note="left out: test-multiple_fruits/ (3 files",
    ),
    Case(
        "class names in other letters in the test split",
        "train/{Cat,Dog}/4 test/{cat,dog}/2",
        "Cat, Dog: 8 train, 4 test",
        note="test/cat/ is the class 'Cat'",
    ),
    Case(
        "accents coded as on a Mac in the test split",
        "train/{caf\u00e9,th\u00e9}/4 test/{cafe\u0301,the\u0301}/2",
        "caf\u00e9, th\u00e9: 8 train, 4 test",
        note="test/cafe\u0301/ is the class",
    ),
    Case(
        "a class that is missing in the test split",
        "train/{ant,bee,cat}/4 test/{ant,bee}/2",
        "ant, bee, cat: 12 train, 4 test",
        note="not in test/: cat",
    ),
    Case(
        "unlabelled test pictures in one folder",
        "train/{ant,bee}/4 test/unknown/6 sample_submission.csv",
        "ant, bee: 8 train",
        note="test/ has no class folders but unknown/, which is no class: its 6 files are not used",
    ),
    Case("splits in each class", "{cat,dog}/{train,test}/3", "cat, dog: 6 train, 6 test"),
    Case("only train/, with classes", "train/{cat,dog}/3", "cat, dog: 6"),
    Case(
        "ILSVRC: train/ with classes, val/ without, deep in folders",
        "ILSVRC/Data/CLS-LOC/train/{n01,n02}/4 ILSVRC/Data/CLS-LOC/val/3"
        " ILSVRC/Annotations/CLS-LOC/train/n01/1.xml",
        "n01, n02: 8 train",
        note="val/ has no class folders: its 3 files",
    ),
    # --- what is refused, with the ways out
    Case(
        "a class that is only in the test split",
        "train/{ant,bee}/4 test/{ant,bee,cat}/2",
        "refused: class cat (2 files) in test/ and not in train/ … --splits train=train",
    ),
    Case(
        "two spellings in one split",
        "train/{Cat,cat}/4 test/cat/2",
        "refused: only in upper and lower",
    ),
    Case(
        "folds",
        "{fold1,fold2}/{a,b}/3",
        "refused: fold1 and fold2 … same folders (a, b) … --splits train=FOLDER,test=FOLDER if … FOLDER+FOLDER … --layout leaves … --layout classes",
    ),
    Case(
        "folders whose names mean splits in another language",
        "{Testdaten,Trainingsdaten}/{a,b}/3",
        "refused: Testdaten and Trainingsdaten … --splits train=FOLDER,test=FOLDER",
    ),
    Case(
        "a split with classes of its own beside two others",
        "{train,val}/{ant,bee}/4 test/{ant,bee,cat}/2",
        "refused: (there: ant, bee) … --splits train=train,validation=val, or",
    ),
    Case(
        "a blank at the end of the class names of one split",
        "train/{ant~,bee~}/4 test/{ant,bee}/2",
        "refused: the classes 'ant', 'bee' (4 files) in test/ and not in train/ (there: 'ant ', 'bee ')",
    ),
    Case(
        "data sets with splits of their own",
        "{setA,setB}/{train,test}/{a,b}/3",
        "refused: setA and setB with splits of their own … (setA/test/a/) … --splits train=setA/train+setB/train,test=setA/test+setB/test … photos/setA … --layout leaves … both without these splits",
    ),
    Case(
        "data sets with splits, called `data` and `images`",
        "{data,images}/{train,test}/{a,b}/3",
        "refused: data and images with splits of their own … --splits train=data/train+images/train,test=data/test+images/test",
    ),
    Case(
        "a data set with splits of which one has another name",
        "setA/{learning,dev,test}/{a,b}/3 setB/{a,b}/3",
        "refused: setA with splits of its own … --splits train=setA/learning,validation=setA/dev,test=setA/test (without setB)",
    ),
    Case(
        "development/ beside test/",
        "development/{a,b}/3 test/{a,b}/2",
        "refused: test/, development/ … --splits train=development,test=test if they are splits",
    ),
    Case(
        "the same classes in `images` and `raw`",
        "{images,raw}/{a,b}/3",
        "refused: images and raw, and each of them contains the same folders (a, b) … --splits … --layout leaves",
    ),
    Case(
        "a data set with splits beside one with one split",
        "{2019/{train,test},2020/train}/{a,b}/3",
        "refused: 2019 with splits of its own … train=2019/train+2020/train,test=2019/test;",
    ),
    Case(
        "a data set with splits beside a folder of pictures",
        "setA/{train,test}/{a,b}/3 setB/3",
        "refused: setA with splits of its own … (without setB)",
    ),
    Case(
        "patients of whom not all have all classes",
        "p1/{a,b}/3 p2/a/3 p3/b/4",
        "refused: each of p1, p2 and p3 holds only folders (a, b): … 3 as the classes … the 2 folders below give --layout leaves",
    ),
    Case(
        "patients with one class each",
        "p1/a/3 p2/a/3 p3/b/4",
        "refused: each of p1, p2 and p3 holds only folders … --splits train=p1+p2+p3",
    ),
    Case(
        "cameras with different classes",
        "c1/{a,b}/3 c2/b/3 c3/c/3",
        "refused: each of c1, c2 and c3 holds only folders … --splits train=c1+c2+c3",
    ),
    Case(
        "two cameras without a class in both",
        "c1/{a,b}/3 c2/c/3",
        "refused: each of c1 and c2 holds only folders",
    ),
    Case(
        "classes with one folder of another name each",
        "p1/ant/3 p2/bee/3",
        "p1, p2: 6",
        note="the classes are the upper of p1/ant/, p2/bee/; for the lower ones give --layout leaves",
    ),
    Case(
        "pictures of each class in a folder of its own kind",
        "cat/images/3 dog/photos/3",
        "cat, dog: 6",
    ),
    Case("pictures of each class in a folder of one name", "{cat,dog}/cropped/3", "cat, dog: 6"),
    Case(
        "train/ beside query/ and gallery/ with the same classes",
        "{train,query,gallery}/{a,b}/3",
        "refused: gallery/ and query/ contain the same class folders as train/ … --splits train=train,test=FOLDER … --layout splits",
    ),
    Case(
        "train/ beside dev-test/",
        "{train,dev-test}/{a,b}/3",
        "refused: dev-test/ contains the same class folders as train/, and its name means no split",
    ),
    Case(
        "train/ and test/ beside trainval/ with the same classes",
        "{train,test,trainval}/{a,b}/3",
        "refused: trainval/ contains the same class folders as train/ and test/",
    ),
    Case(
        "val/ and test/ beside trainval/",
        "{val,test,trainval}/{a,b}/3",
        "refused: --splits train=trainval,validation=val,test=test if",
    ),
    Case(
        "train/ and development/",
        "train/{a,b}/4 development/{a,b}/2",
        "a, b: 8 train, 4 validation",
    ),
    Case("train/, cv/ and test/", "{train,cv,test}/{a,b}/3", "a, b: 6 train, 6 validation, 6 test"),
    Case("`cv` is a kind of document", "{cv,invoice,letter}/3", "cv, invoice, letter: 9"),
    Case(
        "altered copies beside each class",
        "{cat,dog}/3 {cat,dog}_augmented/4",
        "refused: cat_augmented beside cat and dog_augmented beside dog … --layout classes",
    ),
    Case(
        "a copy beside a class, in splits",
        "train/{cat,dog,dog~-~Copy}/3 test/{cat,dog}/3",
        "refused: dog - Copy beside dog … --layout splits",
    ),
    Case(
        "training pictures beside each class",
        "{cat,dog}/3 {cat,dog}_train/4",
        "refused: cat_train beside cat and dog_train beside dog",
    ),
    Case(
        "one class with a word more than another",
        "{tree,tree_house,station,train_station}/3",
        "station, train_station, tree, tree_house: 12",
    ),
    Case("years", "{2019,2020}/{a,b}/3", "refused: same folders (a, b) … --layout leaves"),
    Case(
        "cameras",
        "{camera_a,camera_b,camera_c}/{a,b}/3",
        "refused: camera_a, camera_b and camera_c",
    ),
    Case(
        "PlantVillage: color/, grayscale/ and segmented/ with the same folders",
        "{color,grayscale,segmented}/{Apple___scab,Apple___rust}/3",
        "refused: each of them contains the same folders",
    ),
    Case(
        "rock-paper-scissors: rps/ and rps-test-set/",
        "rps/{paper,rock}/5 rps-test-set/{paper,rock}/3",
        "refused: --splits train=rps,test=rps-test-set",
    ),
    Case(
        "horse-or-human",
        "horse-or-human/{horses,humans}/5 validation-horse-or-human/{horses,humans}/3",
        "refused: --splits train=horse-or-human,validation=validation-horse-or-human",
    ),
    Case(
        "Places: classes below letters",
        "a/{airfield,alley,attic}/3 b/{bakery,barn,beach}/3",
        "refused: each of a and b holds only folders (airfield, alley, attic and 3 more)"
        " … --layout classes … for the 6 folders below give --layout leaves",
    ),
    Case(
        "BreakHis: deep folders",
        "{benign,malignant}/SOB/{40X,100X}/3",
        "refused: --layout leaves",
    ),
    Case(
        "two folders for one split",
        "train/{a,b}/3 training/{a,b}/3 test/{a,b}/3",
        "refused: several folders are named like the same split … --splits train=train+training,test=test",
    ),
    Case(
        "train/ and a folder that is no split",
        "train/{a,b}/3 cars/4",
        "refused: train/ is named like a split … --splits train=train if",
    ),
    Case(
        "test/ among classes",
        "{cat,dog,test}/3",
        "refused: test/ is named like a split … --layout classes",
    ),
    Case(
        "train/ and test/ without class folders",
        "{train,test}/3",
        "refused: no class folders; make one sub-folder per class … --layout classes if test and train are classes",
    ),
    Case(
        "Dogs vs. Cats: the class in the file name",
        "train/cat.0.jpg train/cat.1.jpg train/dog.0.jpg train/dog.1.jpg test/1.jpg test/2.jpg",
        "refused: no class folders; the names begin with 2 words (cat, dog); make",
    ),
    Case(
        "Oxford pets: all pictures in one folder, the class in the file name",
        "images/Abyssinian_1.jpg images/Abyssinian_2.jpg images/Bengal_1.jpg images/Bengal_2.jpg",
        "refused: the names begin with 2 words (Abyssinian, Bengal) … a CSV with the columns path,label",
    ),
    Case(
        "Flowers-102: loose pictures and .mat files",
        "jpg/image_1.jpg jpg/image_2.jpg imagelabels.mat",
        "refused: no class folders",
    ),
    Case(
        "loose pictures beside a train.csv",
        "train/1.jpg train/2.jpg train/3.jpg train.csv=id,label|1,cat|2,dog|3,cat",
        "refused: but train.csv lists them: ",
    ),
    Case(
        "pictures in one folder and a table, in a folder",
        "data/images/{1,2,3}.jpg data/labels.csv=path,label|1.jpg,a|2.jpg,b|3.jpg,a",
        "refused: 3 files … and no class folders, but data/labels.csv lists them: ",
    ),
    Case(
        "pictures in one folder of another name and a table beside it",
        "data/leaf/{1,2,3}.jpg data/labels.csv=path,label|1.jpg,a|2.jpg,b|3.jpg,a",
        "refused: 1 class, leaf (3 files) … for each other class; data/labels.csv lists them: ",
    ),
    Case(
        "HAM10000: pictures in two parts and a table",
        "HAM10000_images_part_1/ISIC_1.jpg HAM10000_images_part_2/ISIC_2.jpg"
        " HAM10000_metadata.csv=lesion_id,image_id,dx|HAM_1,ISIC_1,bkl|HAM_2,ISIC_2,nv",
        "refused: parts of one folder … HAM10000_metadata.csv lists them",
    ),
    Case(
        "YOLO: images/ and labels/ in each split",
        "{train,valid,test}/images/3 {train,valid,test}/labels/1.txt data.yaml",
        "refused: no class folders",
    ),
    Case(
        "COCO: train2017/ and val2017/",
        "{train2017,val2017}/3 annotations/instances_train2017.json",
        "refused: no class folders",
    ),
    Case(
        "parts of one folder",
        "{part1,part2,part3}/3",
        "refused: parts of one folder … --layout classes",
    ),
    Case("pictures and masks", "images/3 masks/3", "refused: no class folders"),
    Case("an empty class folder", "{cat,dog}/3 ant/", "refused: ant in … is an empty class folder"),
    Case(
        "COVID radiography: images/ and masks/ in each class",
        "{COVID,Normal}/{images,masks}/3 COVID.metadata.xlsx",
        "refused: 6 files look like masks of other images … --masks ignore … --masks keep",
    ),
    Case(
        "images/ and ground_truth/ in each class",
        "{cat,dog}/{images,ground_truth}/3",
        "refused: 6 files look like masks of other images … (the first is cat/ground_truth/picture 0.jpg, of cat/images/picture 0.jpg)",
    ),
    Case(
        "breast ultrasound: each picture with its mask",
        "{benign,normal}/{1,2,3}.jpg {benign,normal}/{1,2}_mask.png benign/2_mask_1.png",
        "refused: 5 files look like masks of other images in photos (the first is benign/1_mask.png, of benign/1.jpg)",
    ),
    Case(
        "masks that begin with the word",
        "{benign,normal}/{1,2,3}.jpg {benign,normal}/mask_{1,2,3}.png=mask",
        "refused: 6 files look like masks of other images in photos (the first is benign/mask_1.png, of benign/1.jpg)",
    ),
    Case(
        "masks with the word in brackets",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}~(mask).png=mask",
        "refused: 6 files look like masks of other images in photos (the first is cat/1 (mask).png, of cat/1.jpg)",
    ),
    Case(
        "CamVid: masks that end in _L",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}_L.png=mask",
        "refused: 6 files look like masks of other images in photos (the first is cat/1_L.png",
    ),
    Case(
        "a folder of masks beside each class",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}_masks/{1,2,3}.png=mask",
        "refused: 6 files look like masks of other images in photos (the first is cat_masks/1.png, of cat/1.jpg)",
    ),
    Case(
        "a folder of masks beside each class, in splits",
        "{train,test}/{cat,dog}/{1,2,3}.jpg {train,test}/mask_{cat,dog}/mask_{1,2,3}.png=mask",
        "refused: 12 files look like masks of other images in photos (the first is test/mask_cat/mask_1.png, of test/cat/1.jpg)",
    ),
    Case(
        "photographs in a folder that is named like masks",
        "{cat,cat_mask}/{1,2,3}.jpg",
        "cat, cat_mask: 6",
    ),
    Case(
        "left and right eyes",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}_L.jpg",
        "cat, dog: 12",
    ),
    Case(
        "masks of the same name, as PNG beside JPEG",
        "{cat,dog}/a{1,2,3}.jpg {cat,dog}/a{1,2,3}.png=mask",
        "refused: 6 files look like masks of other images in photos (the first is cat/a1.png",
    ),
    Case(
        "DRIVE: masks with any other word",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}_manual1.gif=mask",
        "refused: 6 files look like masks of other images in photos (the first is cat/1_manual1.gif, of cat/1.jpg)",
    ),
    Case(
        "masks with the word at the number",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}mask.png=mask",
        "refused: 6 files look like masks of other images in photos (the first is cat/1mask.png",
    ),
    Case(
        "photographs with any other word",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}_edited.png",
        "cat, dog: 12",
    ),
    Case(
        "a folder of masks among the classes",
        "{cat,dog}/a{1,2}.jpg masks/a{1,2}_mask.png",
        "refused: 2 files look like masks of other images in photos (the first is masks/a1_mask.png, of",
    ),
    Case(
        "classes in splits that contain the same folders",
        "train/{a,b}/{x,y}/3 test/{a,b}/{x,y}/2",
        "refused: contains a and b, and each … (x, y) … --layout leaves … --layout splits if a and b are",
    ),
    Case(
        "classes in splits that contain only folders",
        "train/{a/{s,t},b/{u,v}}/3 test/{a/s,b/u}/2",
        "refused: each of a and b holds only folders … give --layout splits; for the 4 folders",
    ),
    Case(
        "images/ and masks/ with the same classes, in splits",
        "{train,test}/{images,masks}/{a,b}/3",
        "refused: images and masks, and each of them contains the same folders (a, b) … --layout leaves",
    ),
    # --- with options
    Case(
        "--layout leaves for images/ and masks/ in splits",
        "{train,test}/{images,masks}/{a,b}/3",
        "refused: 12 files look like masks of other images … (the first is test/masks/a/picture 0.jpg, of test/images/a/picture 0.jpg)",
        Reading(layout="leaves"),
    ),
    Case(
        "--layout classes for pictures and masks",
        "archive/{images,masks}/3",
        "images, masks: 6",
        Reading(layout="classes", masks="keep"),
    ),
    Case(
        "--layout splits for classes that contain folders",
        "train/{a,b}/{x,y}/3 test/{a,b}/{x,y}/2",
        "a, b: 12 train, 8 test",
        Reading(layout="splits"),
    ),
    Case(
        "--masks ignore",
        "{COVID,Normal}/{images,masks}/3",
        "COVID, Normal: 6",
        Reading(masks="ignore"),
        "6 masks are left out",
    ),
    Case(
        "--masks ignore for folders beside the classes",
        "{cat,dog}/{1,2,3}.jpg {cat,dog}_masks/{1,2,3}.png=mask",
        "cat, dog: 6",
        Reading(masks="ignore"),
        "6 masks are left out",
    ),
    Case(
        "--masks keep",
        "{COVID,Normal}/{images,masks}/3",
        "COVID, Normal: 12",
        Reading(masks="keep"),
    ),
    Case(
        "people with and without a mask, named so",
        "{with_mask,without_mask}/anna{1,2}.jpg with_mask/anna{1,2}_mask.jpg",
        "with_mask, without_mask: 6",
    ),
    Case(
        "each picture as JPEG and PNG",
        "{cat,dog}/a{1,2,3}.jpg {cat,dog}/a{1,2,3}.png",
        "cat, dog: 12",
    ),
    Case(
        "--skip-empty", "{cat,dog}/3 ant/", "cat, dog: 6", Reading(skip_empty=True), "as empty: ant"
    ),
    Case(
        "--splits",
        "rps/{paper,rock}/5 rps-test-set/{paper,rock}/3 old/2",
        "paper, rock: 10 train, 6 test",
        Reading(splits="train=rps,test=rps-test-set"),
        "left out: old/ (2 files, not in --splits)",
    ),
    Case(
        "--splits with three",
        "x/{a,b}/5 y/{a,b}/3 z/{a,b}/2",
        "a, b: 10 train, 4 validation, 6 test",
        Reading(splits="train=x,val=z,test=y"),
    ),
    Case(
        "--splits with several folders for one split",
        "{f0,f1,f2}/{a,b}/3 f3/{a,b}/2 f4/a/1",
        "a, b: 18 train, 4 validation, 1 test",
        Reading(splits="train=f0+f1+f2,validation=f3,test=f4"),
        "not in f4/: b",
    ),
    Case(
        "--splits with one split given twice, and classes that differ",
        "f0/a/3 f1/b/2 f2/{a,b}/4",
        "a, b: 5 train, 8 test",
        Reading(splits="train=f0,test=f2,train=f1"),
    ),
    Case(
        "--splits with the splits of two data sets",
        "{setA,setB}/{train,test}/{a,b}/3",
        "a, b: 12 train, 12 test",
        Reading(splits="train=setA/train+setB/train,test=setA/test+setB/test"),
    ),
    Case(
        "--splits with a name that contains +",
        "c+cc/{a,b}/3 d/{a,b}/2",
        "a, b: 6 train, 4 test",
        Reading(splits="train=c+cc,test=d"),
    ),
    Case(
        "--splits with a class that only another split has",
        "f0/{a,b}/3 f1/b/2 f2/{a,c}/4",
        "refused: class c (4 files) in f2/ and not in f0/ and f1/",
        Reading(splits="train=f0+f1,test=f2"),
    ),
    Case(
        "--splits with nothing after +",
        "{f0,f1}/{a,b}/3",
        "refused: --splits gives 'f0+' for train",
        Reading(splits="train=f0+,test=f1"),
    ),
    Case(
        "--splits with a folder twice in a split",
        "{f0,f1}/{a,b}/3",
        "refused: --splits names f0 2 times",
        Reading(splits="train=f0+f0,test=f1"),
    ),
    Case(
        "--splits with only a test split",
        "test/{a,b}/3",
        "a, b: 6 test",
        Reading(splits="test=test"),
        "in the split test/ in",
    ),
    Case(
        "--splits, in a folder on top",
        "data/2019/{a,b}/5 data/2020/{a,b}/3",
        "a, b: 10 train, 6 test",
        Reading(splits="train=2019,test=2020"),
    ),
    Case(
        "--splits with a folder that is not there",
        "{Training,Testing}/{a,b}/3",
        "refused: names the folder Trainig, which does not exist … Did you mean 'Training'",
        Reading(splits="train=Trainig,test=Testing"),
    ),
    Case(
        "--splits with the same folder twice",
        "{Training,Testing}/{a,b}/3",
        "refused: --splits names Testing 2 times; name each folder once",
        Reading(splits="train=Testing,test=Testing"),
    ),
    Case(
        "--splits with an unknown split",
        "{Training,Testing}/{a,b}/3",
        "refused: no split is called 'trian'",
        Reading(splits="trian=Training"),
    ),
    Case(
        "--layout leaves",
        "a/{airfield,alley}/3 b/bakery/4",
        "airfield, alley, bakery: 10",
        Reading(layout="leaves"),
    ),
    Case(
        "--layout leaves: the same names everywhere",
        "{fold1,fold2}/{a,b}/3",
        "a, b: 12",
        Reading(layout="leaves"),
        "one class: a (2 folders, 6 files), b (2 folders, 6 files)",
    ),
    Case(
        "--layout leaves in data sets with splits of their own",
        "{setA,setB}/{train,test}/{a,b}/3",
        "a, b: 24",
        Reading(layout="leaves"),
        "test/ and train/ are not kept as splits",
    ),
    Case(
        "--layout leaves where the deepest folders are splits",
        "{cat,dog}/{train,test}/3",
        "refused: deepest folders of photos are called test and train, like splits; omit --layout leaves",
        Reading(layout="leaves"),
    ),
    Case(
        "--layout leaves: the same name in some places",
        "c/{church,castle}/{indoor,outdoor}/3 a/attic/4",
        "attic, c-castle-indoor, c-castle-outdoor, c-church-indoor, c-church-outdoor: 16",
        Reading(layout="leaves"),
    ),
    Case(
        "--layout leaves in splits",
        "train/{a/{x,y},b/z}/3 test/{a/{x,y},b/z}/2",
        "x, y, z: 9 train, 6 test",
        Reading(layout="leaves"),
    ),
    Case(
        "--layout classes",
        "{Training,Testing}/{a,b}/3",
        "Testing, Training: 12",
        Reading(layout="classes"),
    ),
    Case(
        "--layout splits where splits contain only pictures",
        "{bus,car,train}/3",
        "refused: no class folders … or pass --layout classes if bus, car and train are classes",
        Reading(layout="splits"),
    ),
    Case(
        "--layout splits beside a folder with the same classes",
        "{train,query}/{a,b}/3",
        "a, b: 6 train",
        Reading(layout="splits"),
        "left out: query/ (6 files, not a split)",
    ),
    Case(
        "--layout classes for copies beside each class",
        "{cat,dog}/3 cat_augmented/4",
        "cat, cat_augmented, dog: 10",
        Reading(layout="classes"),
    ),
    Case(
        "--layout splits",
        "train/{a,b}/3 cars/4",
        "a, b: 6 train",
        Reading(layout="splits"),
        "left out: cars/ (4 files, not a split)",
    ),
]


def make(case: Case, folder: Path) -> Path:
    """Write the files of a case into a folder, and return it."""
    folder.mkdir(parents=True)
    for word in case.files.split(" "):
        path, equals, content = word.replace("~", " ").partition("=")
        for one in _braces_opened(path):
            target = folder / one
            if content == "mask" or ("_mask" in target.stem and target.suffix == ".png"):
                _write(target, mask(one))
            elif equals:
                _write(target, content.replace("|", "\n").encode())
            elif one.endswith("/"):
                target.mkdir(parents=True)
            elif target.name.isdigit() and int(target.name) < 100 and not target.suffix:
                for number in range(int(target.name)):
                    _write(target.parent / f"picture {number}.jpg", picture(f"{one} {number}"))
            else:
                is_picture = target.suffix in (".jpg", ".png")
                _write(target, picture(one) if is_picture else b"<annotation>\n")
    return folder


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def picture(seed: str) -> bytes:
    """Return a small JPEG of random blocks, another one for each text."""
    draw = np.random.default_rng(list(seed.encode()))
    stream = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((16, 16)).save(
        stream, "JPEG"
    )
    return stream.getvalue()


def mask(seed: str) -> bytes:
    """Return a small PNG of two values, another one for each text."""
    draw = np.random.default_rng(list(seed.encode()))
    stream = io.BytesIO()
    Image.fromarray(np.repeat(draw.integers(0, 2, (4, 4), dtype=np.uint8) * 255, 4, 0)).resize(
        (16, 16), Image.Resampling.NEAREST
    ).save(stream, "PNG")
    return stream.getvalue()


def _braces_opened(word: str) -> list[str]:
    """Return `{a,b}/3` as a/3, b/3; braces can be within braces."""
    start = word.find("{")
    if start < 0:
        return [word]
    depth, choices, since = 0, [], start + 1
    for at in range(start, len(word)):
        depth += {"{": 1, "}": -1}.get(word[at], 0)
        if (word[at] == "," and depth == 1) or (word[at] == "}" and depth == 0):
            choices.append(word[since:at])
            since = at + 1
        if depth == 0:
            break
    return [
        one for each in choices for one in _braces_opened(f"{word[:start]}{each}{word[at + 1 :]}")
    ]


def outcome(source: Source) -> str:
    """Return what was read, as the cases write it."""
    names = ", ".join(source.class_names)
    num = Counter(file.given_split for file in source.files if file.class_name)
    counts = ", ".join(f"{num[split]} {split}".strip() for split in ("", *SPLITS) if num[split])
    return f"{names}: {counts}"
