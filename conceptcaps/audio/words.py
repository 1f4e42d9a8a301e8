"""Which words in a tag stand for which musical cue: the synthesiser's dictionary.

Phrases are separated by semicolons and matched without case or plural endings. In each table the longest phrase
wins and uses its words up; those under None only keep shorter ones from matching, as 'bass guitar' does 'guitar'.
"""

from __future__ import annotations

Value = str | float | tuple[float, float]

SLOW, SLOW_TO_MEDIUM, MEDIUM, MEDIUM_TO_FAST, FAST = (60, 78), (76, 90), (92, 110), (112, 126), (132, 168)
"""Tempo families, beats per minute."""

WORDS: dict[str, dict[Value | None, str]] = {
    "tempo": {
        SLOW: ("slow; slow tempo; slower tempo; adagio; largo; downtempo; lento; slow paced; slow rock; sluggish"),
        SLOW_TO_MEDIUM: ("slow to medium; slow to medium tempo; slower to medium tempo; andante; slow medium tempo"),
        MEDIUM: (
            "medium tempo; moderate tempo; mid tempo; midtempo; moderate; medium; moderato; steady tempo; medium paced"
        ),
        MEDIUM_TO_FAST: (
            "medium to uptempo; medium fast tempo; medium to fast; medium fast; moderately fast; medium to high tempo"
        ),
        FAST: (
            "fast tempo; fast; uptempo; up tempo; upbeat; allegro; presto; fast paced; quick; rapid; driving; double "
            "time; drum and bass; drum n bass; breakneck; lively tempo"
        ),
    },
    "patterns": {
        "rock": "rock; punk; grunge; hard rock; alternative rock; garage rock; rock n roll; rock and roll",
        "metal": "metal; heavy metal; death metal; metalcore; thrash; hardcore",
        "backbeat": (
            "pop; indie; soul; r b; rnb; soft rock; pop rock; gospel; disco pop; pop song; soulful; worship; "
            "schlager; synth pop; electro pop; new wave; k pop; ska; motown; christian; bollywood"
        ),
        "four_on_the_floor": (
            "techno; house; edm; electronic dance music; trance; disco; dance; dance music; dance pop; electronic; "
            "electronica; eurodance; rave; club; 4 on the floor; four on the floor; dubstep; electro; kick pattern; "
            "hardstyle; dance song; synthwave; dance groove; drum and bass"
        ),
        "hip_hop": (
            "hip hop; rap; rapping; boom bap; lo fi; lofi; rapper; beatboxing; beatbox; beat boxing; breakbeat; trip "
            "hop"
        ),
        "trap": "trap; drill; phonk",
        "funk": "funk; funky; soul funk; acid jazz",
        "swing": "jazz; swing; bebop; big band; jazzy; bossa jazz; lounge; ragtime; dixieland; smooth jazz",
        "blues": "blues; bluesy; shuffle; boogie; boogie woogie",
        "reggae": "reggae; dub; reggaeton; dancehall; rocksteady",
        "latin": (
            "latin; salsa; bossa nova; samba; tango; rumba; flamenco; cumbia; bachata; mambo; latin dance music; "
            "merengue"
        ),
        "afrobeat": "afrobeat; afro; african; afropop; highlife; polyrhythm; tribal; world music",
        "folk": (
            "folk; folk music; celtic; bluegrass; singer songwriter; irish; traditional; fingerpicking; folk song"
        ),
        "country": "country; country music; western swing; americana; honky tonk",
        "ballad": "ballad; lullaby; love song; slow dance; christmas; carol; power ballad",
        "classical": (
            "classical; classical music; western classical music; baroque; opera; chamber; symphonic; symphony; "
            "waltz; orchestral; orchestra; concerto; sonata; romantic period; string quartet; marching"
        ),
        "cinematic": (
            "march; cinematic; movie soundtrack; movie music; soundtrack; trailer; film score; video game; movie; "
            "film music; theme"
        ),
        "ambient": (
            "ambient; meditation; meditative; drone; ambient sound; ambient noise; new age; spa; chillout; "
            "soundscape; field recording; white noise; easy listening"
        ),
        None: ("electronic drum; electronic percussion; electronic beat; electronic drumming; rhythm and blues harp"),
    },
    "leanings": {
        "funk": "groovy; groove; groovy rhythm; slap bass; groovy bass",
        "four_on_the_floor": "danceable; dance rhythm; people dancing; exciting; club; energetic",
        "ballad": "romantic; sentimental; sad; nostalgic; emotional; love",
        "ambient": (
            "ethereal; hypnotic; chill; atmospheric; relaxing; calming; soothing; sleep; yoga; nature sound; dreamy; "
            "meditative; spiritual; calm"
        ),
        "cinematic": "epic; suspenseful; dramatic; heroic; mysterious; eerie; scary; inspiring",
        "rock": "aggressive; intense; distorted guitar; rebellious",
        "backbeat": "fun; happy; cheerful; uplifting; joyful; positive; passionate",
        "folk": "acoustic guitar; heartfelt; gentle; easygoing",
        "classical": "violin; cello; orchestra; string",
        "swing": "saxophone; trumpet; double bass; clarinet",
    },
    "instruments": {
        "piano": "piano; grand piano; piano accompaniment; pianist; piano chord; piano melody",
        "keyboard": (
            "keyboard; electric piano; rhodes; keyboard harmony; keyboard accompaniment; wurlitzer; e piano; "
            "keyboardist"
        ),
        "acoustic_guitar": (
            "acoustic guitar; acoustic rhythm guitar; ukulele; classical guitar; nylon guitar; fingerstyle guitar; "
            "acoustic rhythm guitar chord; strummed guitar; mandolin; acoustic guitarist; spanish guitar"
        ),
        "electric_guitar": (
            "electric guitar; e guitar; guitar; clean guitar; guitar solo; lead guitar; guitar riff; wah wah guitar; "
            "guitar melody; guitarist; slide guitar; electric guitar solo; electric guitar melody"
        ),
        "distorted_guitar": (
            "distorted guitar; distorted electric guitar; power chord; distortion; overdriven guitar; fuzz; distorted "
            "guitar rhythm; heavy guitar; guitar feedback; electric guitar feedback"
        ),
        "strings": (
            "string; orchestra; string section; violins; ensemble; symphony; string arrangement; string quartet; "
            "viola; orchestral"
        ),
        "violin": "violin; fiddle; violin solo; violinist; erhu",
        "cello": "cello; contrabass; cellist; bowed bass",
        "flute": (
            "flute; recorder; pan flute; whistle; whistling; woodwind; bansuri; piccolo; ocarina; flutist; shakuhachi"
        ),
        "clarinet": "clarinet; oboe; bassoon; duduk; reed",
        "saxophone": "saxophone; sax; tenor sax; alto sax; saxophonist",
        "trumpet": "trumpet; cornet; bugle; muted trumpet; trumpeter; flugelhorn",
        "brass": "brass; horn; trombone; tuba; brass section; horn section; french horn",
        "synth": (
            "synth; synthesizer; synthesiser; synth lead; arpeggio; arpeggiator; electro; synth melody; sequencer; "
            "lead synth; chiptune; 8 bit; synth arpeggio; analog synth; theremin; laser"
        ),
        "pad": "pad; synth pad; drone; string pad; atmospheric synth; synth drone",
        "organ": "organ; hammond; church organ; pipe organ; hammond organ; organist",
        "accordion": "accordion; bandoneon; concertina; melodica; bagpipe; hurdy gurdy; accordionist",
        "harmonica": "harmonica; blues harp; mouth organ",
        "marimba": "marimba; xylophone; balafon; kalimba; mallet; wood percussion; thumb piano; marimbist",
        "plucked_synth": ("plucked synth; synth pluck; pluck; synth plucked; pizzicato synth; plucked synth melody"),
        "bells": (
            "bell; glockenspiel; vibraphone; music box; celesta; chime; steel drum; steelpan; tubular bell; singing "
            "bowl; gong; vibraphonist; wind chime"
        ),
        "harp": "harp; koto; zither; guzheng; lyre; dulcimer; harpsichord; kora; harpist",
        "banjo": "banjo; shamisen; banjoist",
        "sitar": "sitar; oud; sarod; bouzouki; tanpura; indian; saz; veena",
        None: (
            "bass guitar; bass guitarist; electric bass guitar; acoustic bass guitar; e bass guitar; drum pad; bass "
            "string; steel drum string"
        ),
    },
    "hits": {
        "kick": "kick; punchy kick; bass drum; kick drum; kick pattern; kick hit; 808",
        "snare": "snare; punchy snare; snare hit; syncopated snare; snare roll; snare drum",
        "hat": "hi hat; hihat; hi hats",
        "clap": "clap; clapping; hand clap; handclap; snap; finger snap",
        "shaker": "shaker; shimmering shaker; maraca; egg shaker; cabasa",
        "tambourine": "tambourine; jingle; sleigh bell",
        "cymbal": "cymbal; shimmering cymbal; crash; crash cymbal; ride cymbal; cymbal crash; energetic cymbal",
        "conga": (
            "conga; bongo; djembe; tabla; hand drum; cajon; percussive; darbuka; tribal drum; dhol; percussionist"
        ),
        "tom": "tom; timpani; taiko; war drum; floor tom; marching drum; tom roll",
        "rim": "rim; rimshot; wood block; woodblock; clave; cowbell",
    },
    "bass_style": {
        "synth_bass": (
            "synth bass; synth bassline; electronic bass; acid bass; wobble bass; groovy synth bass; bass synth"
        ),
        "deep_bass": "deep bass; sub bass; 808 bass; 808; sub; heavy bass; deep bassline",
        "walking": "walking bass; walking bassline; double bass; upright bass; jazz bass; groovy double bass",
        "bass": "bass guitar; e bass; slap bass; bass guitarist; groovy bass; electric bass; bass guitar line",
    },
    "feel": {
        "swing": "swing; swing rhythm; shuffle; swung; swinging; triplet feel; shuffle beat",
        "half_time": "half time; half time beat; half time feel; half time drum",
        "waltz": "waltz; waltz rhythm; 3 4; three four; triple meter; waltz time; minuet",
        "free": ("free rhythm; rubato; free time; rhythmless; beatless; no tempo; free tempo; uneven rhythm; ad lib"),
    },
    "kit": {
        "electronic": (
            "electronic drum; digital drum; drum machine; 808; programmed percussion; programmed drum; electronic "
            "drumming; synth drum; electronic percussion; electronic beat; beatbox; beatboxing; beat boxing"
        ),
        "acoustic": (
            "acoustic drum; live drum; drum kit; drumming; steady drumming; acoustic drumming; drummer; drum set; "
            "jazz drum"
        ),
    },
    "on": {
        "percussion": (
            "steady beat; snare; kick; hi hat; clap; strong beat; half time beat; march; marching; percussion; drum; "
            "drumming; beat; drum beat; steady drumming; acoustic drum; electronic drum; digital drum; drum machine; "
            "drum kit; live drum; strong drumming rhythm; steady drumming rhythm; rhythmic beat; beatbox; beatboxing; "
            "beat boxing; rhythm section; drum roll; four on the floor; 4 on the floor; kick pattern; percussive; "
            "drummer; programmed percussion; drum set; percussion instrument; acoustic drumming; electronic drumming; "
            "hard hitting; rhythmic pattern; rhythmic patter; steady rhythm; strong rhythm"
        ),
        "bass": (
            "bass synth; low end; bass; bass guitar; e bass; bass line; bassline; double bass; upright bass; groovy "
            "bass; synth bass; sub bass; slap bass; bas slime; bass lines; 808; drum and bass; walking bass; bass "
            "guitarist; contrabass; sub; fretless bass"
        ),
        "voice": (
            "voice; vocal; singer; singing; vocalist; sung; choir; vocals; rap; rapping; rapper; speech; spoken word; "
            "chant; humming; a cappella; acapella; opera; backing vocal; background vocal; vocal harmony; yodel; "
            "rhythmic speech; chorus vocal; crooning; shouting; screaming; choral; harmonized vocal; gospel choir; "
            "vocal chop; vocalization; melisma"
        ),
        "male": (
            "male; man; men; baritone; tenor; boy; male voice; male vocal; male singer; male vocalist; bass voice; "
            "rapper; guttural"
        ),
        "female": (
            "female; woman; women; soprano; girl; alto; female voice; female vocal; female singer; female vocalist; "
            "diva; mezzo; child"
        ),
        None: "bass drum; bass voice; steel drum; drum and bass song; instrumental song",
    },
    "mode": {
        "major": (
            "bright; peaceful; warm; happy; cheerful; joyful; fun; playful; uplifting; positive; inspiring; major; "
            "major key; sunny; festive; celebratory; optimistic; merry; children; hopeful; feel good; bouncy; "
            "comical; triumphant; quirky; upbeat; romantic; heartwarming; light hearted; lighthearted; jolly; "
            "fanfare; victorious; carefree; patriotic"
        ),
        "minor": (
            "sad; melancholic; dark; eerie; scary; suspenseful; mysterious; aggressive; minor; minor key; sombre; "
            "somber; haunting; ominous; tense; gloomy; melancholy; sinister; angry; emotional; poignant; nostalgic; "
            "tragic; sorrowful; menacing; creepy; horror; lonely; mournful; intense; dramatic; wistful; longing; "
            "heartbreaking; brooding; spooky; foreboding"
        ),
    },
    "brightness": {
        0.92: (
            "bright; harsh; shimmering; sharp; crisp; piercing; brilliant; sparkling; shrill; tinny; shiny; chiptune; "
            "noisy; screeching"
        ),
        0.75: (
            "aggressive; cheerful; exciting; energetic; joyful; festive; metallic; chaotic; happy; punchy; "
            "electrifying; intense"
        ),
        0.22: (
            "peaceful; calm; calming; soothing; gentle; soft; sentimental; sad; melancholic; nostalgic; intimate; "
            "romantic; smooth; meditative; dreamy; lullaby"
        ),
        0.08: (
            "dark; mellow; warm; muffled; deep; gloomy; low fidelity; muted; lo fi; lofi; ominous; subdued; brooding; "
            "bassy"
        ),
    },
    "energy": {
        0.95: (
            "energetic; aggressive; intense; loud; powerful; heavy; metal; hard rock; epic; chaotic; punk; harsh; "
            "driving; explosive; fierce; heavy metal; wild; furious; strong; screaming; hard hitting; high energy; "
            "hardstyle; boomy; rave"
        ),
        0.75: (
            "cheerful; happy; playful; exciting; passionate; fun; upbeat; danceable; rock; dance; punchy; uplifting; "
            "lively; joyful; triumphant; festive; dramatic"
        ),
        0.25: (
            "warm; dreamy; nostalgic; melancholic; mellow; sentimental; romantic; chill; calm; peaceful; sad; "
            "relaxing; emotional; meditative; intimate; easygoing"
        ),
        0.06: (
            "peaceful; soft; soothing; gentle; calming; quiet; delicate; tender; ambient; lullaby; sleepy; tranquil; "
            "light; whisper; meditation; minimal"
        ),
    },
    "space": {
        0.85: (
            "ethereal; ambient; dreamy; spacious; atmospheric; reverb; echo; cathedral; spiritual; meditative; wide; "
            "distant; ambient sound; haunting; meditation; reverberant; ambient noise; church; hypnotic; psychedelic; "
            "airy; immersive"
        ),
        0.5: (
            "cinematic; epic; orchestral; live performance; choir; mysterious; eerie; concert; hall; movie; "
            "soundtrack; gospel; suspenseful"
        ),
        0.03: "dry; intimate; close; studio; tight; punchy; amateur recording; home recording; raw",
    },
    "flags": {
        "syncopated": (
            "groovy; groove; syncopated; funky; polyrhythm; syncopated rhythm; groovy bass; groovy rhythm; offbeat; "
            "afrobeat"
        ),
        "tense": (
            "eerie; scary; suspenseful; weird; creepy; horror; dissonant; chaotic; tense; spooky; ominous; "
            "unsettling; avant garde; experimental; psychedelic; sinister; menacing; thriller; nightmarish; atonal"
        ),
        "spoken": (
            "rap; rapping; rapper; speech; spoken word; rhythmic speech; narration; talking; hip hop; flat; flat vocal"
        ),
        "choir": (
            "choir; choral; gospel choir; children choir; chorus vocal; chant; choir voice; backing choir; ensemble "
            "singing"
        ),
        "arpeggio": (
            "arpeggio; arpeggiated; arpeggiated pattern; arpeggiator; fingerpicking; fingerpicked; rising pattern; "
            "broken chord; synth arpeggio; arpeggiated chord; picking; plucked"
        ),
        "march": "march; marching; marching band; military; marching drum; march rhythm; parade",
        "hypnotic": "hypnotic; repetitive; monotonous; loop; looping; trance; minimal; drone; ostinato",
        "playful": ("playful; bouncy; quirky; comical; funny; staccato; cheeky; cartoonish; whimsical; light hearted"),
        "expressive": (
            "passionate; emotional; soulful; vibrato; opera; sensual; expressive; dramatic; diva; romantic; heartfelt"
        ),
    },
}
"""Field of `keywords.Cues` -> value -> phrases that stand for it."""
