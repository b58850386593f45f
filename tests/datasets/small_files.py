"""Small files in the formats of data sets, for their readers and for what all readers have in common."""

from __future__ import annotations

import json
from pathlib import Path


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_bytes(text.encode())
    return root


def malformed(dataset, name):
    return next(f["malformed_first"] for f in dataset.origin()["files"] if Path(f["path"]).name == name)


MSVD_FILES = {
    "captions_msvd.json": {
        "-4wsuPCjDBc_5_15": ["a squirrel is eating a peanut in it s shell", "a chipmunk is eating"],
        "bQJQGoJF7_k_162_169": ["someone pours liquid", "someone pours liquid", " "],
    },
    "train_list.txt": "-4wsuPCjDBc_5_15\r\n",
    "test_list.txt": "bQJQGoJF7_k_162_169\nnobody_1_2\nbQJQGoJF7_k_162_169",
    "youtube_mapping.txt": "-4wsuPCjDBc_5_15 vid1\nbQJQGoJF7_k_162_169 vid1201\nonly_one_1_2 vid1301\nbroken\n",
    "train_qa.json": [{"answer": "animal", "id": 0, "question": "what is chewing on a nut?", "video_id": 1}],
    "val.csv": "video,width,height,question,answer,qid\n1201,480,360,who pours,someone,30933\n7,1,1,who,x,30934\n",
    "msvd_cn_captions_release_utf8.csv": "id,video_id,sentence\r\n1,vid1.mp4,一个小猫在舔舐牛奶\r\n2,vid1201.mp4,倒\r\n"
    "3,vid1.mp4,小猫\r\n4,vid9999.mp4,无\r\n5,vid1301.mp4,有",
}


PUMPKIN = ["A woman is carving a pumpkin", "B "]
VATEX_ROWS = [
    {"videoID": "nJ6KPT1uwe8_000047_000057", "enCap": PUMPKIN, "chCap": ["雕刻", "南瓜"]},
    {"videoID": "-J6KPT_uwe8_000001_000011", "enCap": ["C"], "chCap": []},
]


ACTIVITYNET = {
    "v_QOlSCBRmfWY": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17, 60.81], [60, 56.26]],
        "sentences": ["A young woman is seen.", " The girl dances.", "  She continues."],
    },
    "v_two": {"duration": 5, "timestamps": [[0, 9]], "sentences": ["x"]},
    "v_bad": {"duration": 5, "timestamps": [[0, 9]], "sentences": ["x", "y"]},
}


STEPS = {
    "database": {
        "GLd3aX16zBg": {
            "subset": "training",
            "duration": 241.62,
            "recipe_type": "113",
            "annotations": [
                {"segment": [90, 102], "id": 0, "sentence": "spread margarine on white bread"},
                {"segment": [114, 127], "id": 1, "sentence": "place cheese on the bread "},
                {"segment": [130, 130], "id": 2, "sentence": "nothing"},
                {"segment": [131, 140], "id": 3, "sentence": " "},
            ],
        },
        "xHr8X2Wpmno": {
            "subset": "validation", "annotations": [{"segment": [47, 60], "id": 0, "sentence": "pick the ends off"}],
        },
        "broken": {"annotations": []},
    },
    "version": "x",
}  # fmt: skip


AUDIOCAPS = (
    "audiocap_id,youtube_id,start_time,caption\r\n"
    '97151,vfY_TJq7n_U,130,"Rustling occurs, ducks quack and water splashes"\r\n'
    "2,r1nicOVtvkQ,7,Birds\r\n97152,vfY_TJq7n_U,130,Ducks quack\r\n97152,vfY_TJq7n_U,130,again\r\n3,x,soon,y\r\n"
)


CLOTHO = (
    "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\r\n"
    '"Ambience, waves .wav",Waves roll in,"Water, then wind",Surf,The sea moves,Waves\r\n'
    "Distorted AM Radio noise.wav,A muddled noise,Static,A radio,Noise,Buzz\r\n"
    "Distorted AM Radio noise.wav,a,b,c,d,e\r\nempty.wav,,,,,\r\ngap.wav,one,,three,four,five\r\n"
)


VALOR = [
    {"video_id": "CEfOX4fYlsY_20.000_30.000", "desc": "In one room, a yellow bird leaped over the fence."},
    {"video_id": "a_b-c4fYlsY_0.000_10.000", "desc": "A train whistles.", "subtitle": ""},
    {"video_id": "a_b-c4fYlsY_0.000_10.000", "desc": "A train whistles."},
    {"video_id": "own clip", "desc": "A dog barks."},
    {"video_id": "no words_0.000_10.000"},
]


AVQA = {
    "video_id": "00000093", "question_id": 12, "type": '["Audio", "Counting"]',
    "question_content": "How many musical instruments were heard throughout the video?", "templ_values": "[]",
    "question_deleted": 0, "anser": "one",
}  # fmt: skip


WEBVID_A = (
    "videoid,name,page_idx,page_dir,duration,contentUrl\n"
    '1053841541,"Travel blogger shoot, a story on top of mountains.",27732,027701_027750,PT00H00M17S,http://x.mp4\n'
    "1053841541,twice,1,027701_027750,PT00H00M17S,http://x.mp4\n5,,1,d,PT00H00M17S,u\n6,fine,1,d,long,u\n"
)


ANTMMF = [
    {"caption": "a person", "clip_name": "data/mp4/video9770", "sen_id": 0, "label": 1},
    {"caption": "the system", "clip_name": "video9770.mp4", "sen_id": 1, "label": 2},
    {"caption": "a span", "clip_name": "video9770.mp4", "start": 0.0, "end": 3.7, "label": 1, "type": "video"},
    {"caption": "a dog", "clip_name": "dog.jpg", "sen_id": 0, "label": 1, "type": "image"},
    {"caption": "", "clip_name": "v_BlowingCandles_g24_c04.avi", "label": 13},
    {"caption": "back", "clip_name": "video9770.mp4", "start": 3.0, "end": 1.0},
]


UCF101_FILES = {
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n10 Biking\r\n",
    "ucfTrainTestlist/trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "Biking/v_Biking_g01_c01.avi 10\r\nBiking/v_Biking_g01_c01.avi 10\r\nBiking/v_Biking_g01_c02.avi 3\r\n",
    "ucfTrainTestlist/testlist01.txt": "ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\n"
    "Knitting/v_Knitting_g01_c01.avi\r\n",
    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": "a clip",
    "UCF-101/v_ApplyLipstick_g01_c01.mp4": "another one, in one folder and converted",
}
