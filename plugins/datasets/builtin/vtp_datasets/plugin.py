"""What the built-in datasets package offers."""

from vtp.hookspecs import Register, hookimpl


@hookimpl
def vtp_register_datasets(register: Register) -> None:
    register("activitynet", "vtp_datasets.activitynet:ActivityNet")
    register("antmmf", "vtp_datasets.antmmf:AntMMF")
    register("audiocaps", "vtp_datasets.audiocaps:AudioCaps")
    register("caption_json", "vtp_datasets.caption_json:CaptionJson")
    register("cc3m", "vtp_datasets.cc3m:CC3M")
    register("charades_sta", "vtp_datasets.charades_sta:CharadesSTA")
    register("clotho", "vtp_datasets.clotho:Clotho")
    register("cnvid", "vtp_datasets.timed_text:CNVid")
    register("coco", "vtp_datasets.karpathy:COCO")
    register("csv", "vtp_datasets.own:OwnData")
    register("didemo", "vtp_datasets.didemo:DiDeMo")
    register("flickr30k", "vtp_datasets.karpathy:Flickr30k")
    register("howto100m", "vtp_datasets.timed_text:HowTo100M")
    register("mix", "vtp_datasets.mix:Mix")
    register("msrvtt", "vtp_datasets.msrvtt:MSRVTT")
    register("msvd", "vtp_datasets.msvd:MSVD")
    register("msvd_cn", "vtp_datasets.msvd:MSVDCN")
    register("music_avqa", "vtp_datasets.music_avqa:MusicAVQA")
    register("shapes", "vtp_datasets.shapes:Shapes")
    register("shards", "vtp_datasets.shards:Shards")
    register("ucf101", "vtp_datasets.ucf101:UCF101")
    register("valor32k", "vtp_datasets.valor32k:VALOR32K")
    register("vat", "vtp_datasets.vat:VAT")
    register("vatex", "vtp_datasets.vatex:VATEX")
    register("visual_genome", "vtp_datasets.visual_genome:VisualGenome")
    register("webvid", "vtp_datasets.webvid:WebVid")
    register("youcook2", "vtp_datasets.youcook2:YouCook2")
